"""Names that a user may have meant, for the errors about names that do not exist."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def describe_closest(name: str, known: Iterable[str]) -> str:
    """Return "closest: ..., ..." with up to three known names like `name`, whatever its case; empty without any."""
    spellings = {text.lower(): text for text in sorted(known) if text != name}
    closest = [spellings[match] for match in get_close_matches(name.lower(), spellings)]
    return f"closest: {', '.join(closest)}" if closest else ""


def describe_closest_file(path: Path) -> str:
    """Return the same for a file that does not exist: files of its folder with its suffix."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    return describe_closest(str(path), [str(file) for file in path.parent.glob(f"*{path.suffix}")])
