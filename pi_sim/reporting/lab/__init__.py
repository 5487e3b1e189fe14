"""The model lab's page: trainings of many designs by one recipe, conversions, and what is inside the models."""
