"""pi-sim: what a transformer costs under secure two-party inference, and what that does to its quality."""

__version__ = "0.1.0"
