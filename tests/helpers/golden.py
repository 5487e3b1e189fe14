"""Texts that tests compare with a file of tests/golden; `PI_SIM_RENEW=1 pytest` rewrites the files."""

import os
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "golden"
Golden = Callable[[str, str], None]
"""The fixture `golden`: the name of a file, and the text that it must hold."""


def compare(name: str, text: str) -> None:
    """Compare a text with its golden file; both may end with a line break or without one."""
    path, text = FOLDER / f"{name}.txt", text.removesuffix("\n") + "\n"
    if os.environ.get("PI_SIM_RENEW"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
