"""The notebooks of docs/examples, executed: every code cell runs, and what a cell ends with shows itself."""

import ast
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted(Path("docs/examples").glob("*.ipynb"))


def execute_cell(source: str, names: dict[str, object]) -> object:
    """Execute a cell as a notebook does, and return the value of its last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


@pytest.mark.slow
@pytest.mark.parties
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_shows_a_table(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        shown = execute_cell("".join(cell["source"]), names)
        printed = capsys.readouterr().out
        kinds = {kind for output in cell["outputs"] for kind in (output.get("data", {}) or {"stdout": None})}
        assert ("text/html" in kinds, "stdout" in kinds) == (shown is not None, bool(printed))
        assert shown is None or "<table" in shown._repr_html_()


def test_there_are_two_and_they_name_no_machine() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["can_my_model_run_privately", "choose_a_design"]
    texts = [path.read_text(encoding="utf-8") for path in NOTEBOOKS]
    assert not any(folder in text for text in texts for folder in ("/tmp", "/home", "/root"))
