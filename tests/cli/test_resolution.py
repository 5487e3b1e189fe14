"""Names are resolved in one module, for the command line and Python; below, functions take the objects."""

import ast
from pathlib import Path

import pi_sim

PACKAGE = Path(pi_sim.__file__).parent
RESOLVERS = {
    "resolve_protocol",
    "load_protocol",
    "load_executable_protocol",
    "load_model_card",
    "load_size",
    "parse_network",
    "ModelSource.parse",
    "CardModel.parse",
    "DealerSpec.parse",
}
DEFINITIONS = {"zoo/source.py", "specs/__init__.py", "cost/pricing.py"}
"""Modules that define resolvers, some by calling others."""
NAMES_IN_FILES = {
    "validation.py": {"load_protocol", "ModelSource.parse", "parse_network"},
    "report/terminal.py": {"load_model_card"},
    "report/frames.py": {"load_model_card", "load_size"},
    "report/norm_free.py": {"load_size", "load_executable_protocol"},
    "training/fine_tuning.py": {"load_model_card", "load_size"},
    "inference/bench/bench.py": {"CardModel.parse"},
    "inference/bench/kernels.py": {"load_executable_protocol"},
    "inference/calibrate.py": {"load_executable_protocol", "load_model_card", "load_size"},
}
"""Modules that resolve names of published tables, of records, of the list of all cards, or constants."""


def called_resolvers(path: Path) -> set[str]:
    """Return the resolvers that a module refers to."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute | ast.Name)}
    return {name for name in RESOLVERS if any(used == name or used.endswith(f".{name}") for used in names)}


def test_only_one_module_resolves_names() -> None:
    callers = {path.relative_to(PACKAGE).as_posix(): called_resolvers(path) for path in PACKAGE.rglob("*.py")}
    below = {
        name: resolvers
        for name, resolvers in callers.items()
        if resolvers and not name.startswith("cli/") and name not in ("resolution.py", *DEFINITIONS)
    }
    assert below == NAMES_IN_FILES


def test_it_resolves_every_kind_of_name() -> None:
    resolved = called_resolvers(PACKAGE / "resolution.py")
    assert resolved == RESOLVERS - {"load_protocol", "load_model_card", "load_size", "CardModel.parse"}
