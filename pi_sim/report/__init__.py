"""Tables, figures and pages: everything that a person reads. English is edited in templates/."""
