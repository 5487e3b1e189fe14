"""The type of the fixture `golden`."""

from collections.abc import Callable

Golden = Callable[[str, str], None]
"""Takes the name of a file of tests/golden, and the text that it must hold."""
