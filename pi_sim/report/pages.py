"""Pages from templates: tables, figures and prose put together, and written with their figures."""

import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pi_sim.files import write_text
from pi_sim.report import figures, kernels, model_lab, norm_free, published_figures, styles, sweep, tables
from pi_sim.report.figures import Drawing
from pi_sim.report.tables import BYTES, COUNT, RATIO, SECONDS, SHARE, Table, Unit, format_perplexity
from pi_sim.sweep.answers import Answer
from pi_sim.validation.validate import Validation


def write_report(folders: list[Path], out: Path) -> list[Path]:
    """Write every page that there are records for, with its figures; return the paths, each page after its figures.

    Raises `UsageError` for a damaged record, or where no run has been recorded.
    """
    sizes = norm_free.load(folders)
    drawn = {name: draw for size in sizes for name, draw in norm_free.drawings(size).items()}
    paths = write_page(out / "norm-free.md", "norm_free", norm_free.context(sizes), drawn)
    lab = model_lab.load(folders)
    if lab:
        paths += write_page(out / "model-lab.md", "model_lab", model_lab.context(lab), model_lab.drawings(lab))
    return paths + write_kernels(folders, out)


def write_kernels(folders: list[Path], out: Path) -> list[Path]:
    """Write the page on kernels from the benchmark recorded in some folders; nothing where there is none."""
    data = kernels.load(folders)
    if data is None:
        return []
    return write_page(out / "kernels.md", "kernels", kernels.context(data), kernels.drawings(data))


def write_validation(validations: list[Validation], out: Path) -> list[Path]:
    """Write the page of published figures beside ours."""
    frame = published_figures.comparison_frame(validations)
    drawn = {"validation": partial(figures.published_scatter, frame)}
    return write_page(out / "validation.md", "validation", published_figures.context(validations), drawn)


def write_sweep(answers: list[Answer], qualities: list[sweep.Quality], path: Path) -> list[Path]:
    """Write the page of a sweep, with a figure for each comparison."""
    compared = {
        f"{path.stem}-{number}": comparison
        for number, comparison in enumerate(sweep.comparisons(answers, qualities), start=1)
    }
    return write_page(path, "sweep", sweep.context(answers, compared), sweep.drawings(compared))


def write_page(path: Path, template: str, context: dict[str, Any], drawn: Mapping[str, Drawing]) -> list[Path]:
    """Write a page and, in a folder beside it, its figures; return the paths, the page last."""
    written = [path.parent / "figures" / f"{name}.svg" for name in drawn]
    for file, draw in zip(written, drawn.values(), strict=True):
        write_text(file, styles.svg(draw))
    write_text(path, render_page(template, context, drawn))
    return [*written, path]


def render_page(template: str, context: dict[str, Any], drawn: Mapping[str, Drawing]) -> str:
    """Render a template; parts are set apart by one empty line, however many empty parts lie between them."""
    text = _environment().get_template(f"{template}.md.j2").render(**context, figure=partial(_figure, drawn))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _figure(drawn: Mapping[str, Drawing], name: str, caption: str) -> str:
    """Embed a figure with its caption, if it is drawn; the first sentence stands for it where it cannot be shown."""
    text = " ".join(caption.split())
    return f"![{text.split('.')[0]}](figures/{name}.svg)\n\n*{text}*" if name in drawn else ""


@cache
def _environment() -> Environment:
    """Return Jinja's environment; an undefined name in a template is an error."""
    environment = Environment(
        loader=PackageLoader("pi_sim.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters.update(table=_table, markdown=_markdown, unwrap=unwrap, perplexity=format_perplexity)
    environment.globals.update(
        count=COUNT, bytes=BYTES, seconds=SECONDS, share=SHARE, ratio=RATIO, unit=_unit, perplexity=format_perplexity
    )
    return environment


def _unit(name: str, divisor: float, decimals: int) -> tuple[Unit, ...]:
    return (Unit(0, name, divisor, decimals),)


def _table(rows: Any, missing: str = "", optional: tuple[str, ...] = (), **columns: Any) -> str:
    """Render rows as a pipe table: a title for each column, or a title with units or a formatter."""
    return _markdown(tables.tabulate(rows, columns, missing, optional))


def _markdown(table: Table) -> str:
    return tables.render(table, "markdown") if table.rows else ""


def unwrap(text: str) -> str:
    """Join the lines of each paragraph and list item; headings, tables, figures and code stay as they are."""
    return "\n\n".join(_join(block) for block in re.split(r"\n{2,}", text.strip()))


def _join(block: str) -> str:
    if block.startswith(("```", "|", "#", "!")):
        return block
    return re.sub(r"\s*\n(?!- )\s*", " ", block)
