"""CONTRIBUTING.md is true: its packages stand in dependency order, and what its tables name exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pi_sim"
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ENTRY_POINTS = {"__init__", "__main__"}
"""Modules at the top of the package, which the table does not list."""


def table_after(heading: str) -> list[list[str]]:
    """Return the cells of the first table after a heading, without its header."""
    lines = TEXT.partition(f"## {heading}\n")[2].splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("| "))
    rows = [line for line in lines[first:] if line.startswith("|")]
    table = rows[: next((index for index, line in enumerate(lines[first:]) if not line.startswith("|")), len(rows))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]


def listed_packages() -> list[str]:
    """Return the packages and modules that the first table lists, in its order."""
    return [name.rstrip("/") for row in table_after("The house") for name in re.findall(r"`([\w/]+)`", row[0])]


def imported_packages(path: Path) -> Iterator[str]:
    """Yield the packages of pi_sim that a module imports from, anywhere in its text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "pi_sim":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pi_sim."):
            yield node.module.split(".")[1]


def test_every_package_is_listed() -> None:
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")} - {"."}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - ENTRY_POINTS
    assert set(listed_packages()) | {"graph/aten"} == folders | modules


def test_no_package_imports_from_one_below_it() -> None:
    order = [name for name in listed_packages() if "/" not in name]
    upward = {
        (package, imported, path.name)
        for package in order
        for path in (
            [PACKAGE / f"{package}.py"] if (PACKAGE / f"{package}.py").is_file() else (PACKAGE / package).rglob("*.py")
        )
        for imported in imported_packages(path)
        if imported in order and order.index(imported) > order.index(package)
    }
    assert not upward


def named_paths(text: str) -> list[Path]:
    """Return the files and folders that a cell names, from the root or inside `pi_sim/`; `NAME` stands for any name."""
    paths = [
        name for name in re.findall(r"`([\w./*]+)`", text) if "/" in name or name.endswith((".py", ".toml", ".md"))
    ]
    return [
        ROOT / name if (ROOT / name.split("/")[0]).exists() else PACKAGE / name for name in paths if "NAME" not in name
    ]


@pytest.mark.parametrize("row", table_after("How to add"), ids=lambda row: row[0])
def test_what_a_row_names_exists(row: list[str]) -> None:
    """Every path exists, and every symbol stands in one of the files that the row names."""
    paths = [path for cell in row[1:] for path in named_paths(cell)]
    missing = [
        str(path) for path in paths if not (list(path.parent.glob(path.name)) if "*" in path.name else path.exists())
    ]
    assert not missing
    texts = [
        file.read_text(encoding="utf-8")
        for path in paths
        for file in (path.rglob("*.py") if path.is_dir() else [path] if path.is_file() else path.parent.glob(path.name))
    ]
    symbols = re.findall(r"`@?(_?[A-Za-z]\w*)`", " ".join(row[1:]))
    absent = [symbol for symbol in symbols if not any(re.search(rf"\b{symbol}\b", text) for text in texts)]
    assert not absent
