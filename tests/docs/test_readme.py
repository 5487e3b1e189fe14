"""The README's commands, executed: what stands there is what they print."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from pi_sim.cli import main
from pi_sim.report.pages import write_report

pytestmark = pytest.mark.slow

README = Path("README.md").read_text(encoding="utf-8")
MEASURED = re.compile(r"^(time|set-up|memory|network|perplexity|logits) .*", re.MULTILINE)
"""Lines that hold measurements: they differ from run to run."""
ELSEWHERE = {"validation.svg"}
"""Figures that come from `pi-sim validate --out`."""
COMMAND_ROW = re.compile(r"^\| `pi-sim ([a-z -]+)` \|", re.MULTILINE)
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "protocols/README.md",
    "models/README.md",
    "docs/glossary.md",
    "docs/decisions.md",
)


def consoles() -> list[tuple[str, str]]:
    """Every command of a console block, with the output below it."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:[^$].*\n|\n)*)", block, re.M)
    ]


def shells(path: str) -> list[str]:
    """Every pi-sim command of the sh blocks of a page, without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", Path(path).read_text(encoding="utf-8"), re.DOTALL)
    lines = (line.partition("#")[0].strip() for block in blocks for line in block.replace("\\\n", "").splitlines())
    return [line for line in lines if line.startswith("pi-sim ")]


@pytest.mark.parametrize("line", [line for page in ("README.md", "models/README.md") for line in shells(page)])
def test_a_command_that_takes_long_is_one_that_pi_sim_knows(line: str) -> None:
    """Its name, options and values; it is not run."""
    command: click.Command = main
    words = line.split()[1:]
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(line, words)


def stable(text: str) -> str:
    return MEASURED.sub(r"\1", text).strip()


@pytest.mark.parametrize(("command", "output"), consoles())
def test_a_command_prints_what_the_readme_shows(command: str, output: str) -> None:
    program, *arguments = command.split()
    assert program == "pi-sim"
    done = subprocess.run([sys.executable, "-m", "pi_sim", *arguments], capture_output=True, text=True, check=True)
    assert stable(done.stdout).startswith(stable(output))


def test_there_are_commands_whose_output_fits_80_columns() -> None:
    assert len(consoles()) == 2
    assert max(len(line) for _, output in consoles() for line in output.splitlines()) <= 80


def test_the_python_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    namespace: dict[str, object] = {}
    exec(code, namespace)
    assert set(namespace["frame"].columns) >= {"module", "op", "count", "rounds", "bytes", "offline_bytes"}


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets


@pytest.mark.parametrize("page", [Path(page) for page in PAGES], ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file, and in a Markdown file to one of its headings."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path), f"{page}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_lists_every_command() -> None:
    groups = {name: command for name, command in main.commands.items() if isinstance(command, click.Group)}
    nested = {f"{name} {command}" for name, group in groups.items() for command in group.commands}
    assert sorted(COMMAND_ROW.findall(README)) == sorted((main.commands.keys() - groups.keys()) | nested)


def test_uv_and_pip_get_the_same_versions() -> None:
    pinned = set(Path("constraints.txt").read_text(encoding="utf-8").splitlines())
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["uv"]["constraint-dependencies"]) <= pinned
    assert set(project["dependency-groups"]["dev"]) & pinned == {"crypten==0.4.1"}


def test_the_committed_pages_are_made_of_the_committed_records(tmp_path: Path) -> None:
    pages = [path for path in write_report([Path("reports/records")], tmp_path) if path.suffix == ".md"]
    measured = {"gpu.md"} if Path("reports/records/latency.json").exists() else set()
    assert {page.name for page in pages} == {"norm-free.md", "model-lab.md", "kernels.md"} | measured
    for page in pages:
        assert page.read_bytes() == (Path("reports") / page.name).read_bytes()
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        path.name for path in Path("reports/figures").iterdir() if path.name not in ELSEWHERE
    }
