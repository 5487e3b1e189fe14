"""Pages from templates: tables, figures and prose put together, and written with their figures."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from pi_sim.files import write_text
from pi_sim.grid.table import SweepRow
from pi_sim.report import figures, kernels, latency, model_lab, norm_free, real_models, styles, sweep, tables
from pi_sim.report.figures import Drawing


def write_report(folders: list[Path], out: Path) -> list[Path]:
    """Write every page that there are records for, each after its figures; a `UsageError` where there is no run."""
    writers = write_norm_free, write_lab, write_kernels, write_latency, write_real_models
    return [path for write in writers for path in write(folders, out)]


def write_norm_free(folders: list[Path], out: Path) -> list[Path]:
    """Write the page on models with and without LayerNorm, and the README's figure where there are trainings of it."""
    sizes, lab = norm_free.load(folders), model_lab.load(folders)
    plots = {name: draw for size in sizes for name, draw in norm_free.drawings(size).items()}
    plots |= norm_free.readme_drawings(sizes, lab) if lab else {}
    return write_page(out / "norm-free.md", "norm_free", norm_free.context(sizes), plots)


def write_lab(folders: list[Path], out: Path) -> list[Path]:
    """Write the page of the model lab; nothing where there are no trainings in the folders' `lab`."""
    lab = model_lab.load(folders)
    return write_page(out / "model-lab.md", "model_lab", model_lab.context(lab), model_lab.drawings(lab)) if lab else []


def write_kernels(folders: list[Path], out: Path) -> list[Path]:
    """Write the page on kernels from the benchmark recorded in some folders; nothing where there is none."""
    data = kernels.load(folders)
    return write_page(out / "kernels.md", "kernels", kernels.context(data), kernels.drawings(data)) if data else []


def write_latency(folders: list[Path], out: Path) -> list[Path]:
    """Write the page on latency on a GPU and the CPU; nothing where there is no record of it."""
    record = latency.load(folders)
    return write_page(out / "gpu.md", "gpu", latency.context(record), latency.drawings(record)) if record else []


def write_real_models(folders: list[Path], out: Path) -> list[Path]:
    """Write the page on models that others trained; nothing where there is no run of one."""
    runs = real_models.load(folders)
    return write_page(out / "real-models.md", "real_models", real_models.context(runs), {}) if runs else []


def write_sweep(answers: list[SweepRow], qualities: pd.DataFrame, path: Path) -> list[Path]:
    """Write the page of a sweep, with a figure for each comparison."""
    comparisons = enumerate(sweep.compare_designs(answers, qualities), start=1)
    compared = {f"{path.stem}-{number}": comparison for number, comparison in comparisons}
    plots = {name: partial(figures.pareto_fronts, comparison) for name, comparison in compared.items()}
    return write_page(path, "sweep", sweep.context(answers, compared), plots)


def write_page(path: Path, template: str, context: dict[str, Any], plots: Mapping[str, Drawing]) -> list[Path]:
    """Write a page and, in a folder beside it, its figures; return the paths, the page last."""
    written = [path.parent / "figures" / f"{name}.svg" for name in plots]
    for file, draw in zip(written, plots.values(), strict=True):
        write_text(file, styles.svg(draw))
    write_text(path, render_page(template, context, plots) + "\n")
    return [*written, path]


def render_page(template: str, context: dict[str, Any], plots: Collection[str]) -> str:
    """Render a page with the figures of plots; a caption's first sentence stands for one that cannot be shown."""

    def figure(name: str, caption: str) -> str:
        text = " ".join(caption.split())
        return f"![{text.split('.')[0]}](figures/{name}.svg)\n\n*{text}*" if name in plots else ""

    return tables.render_template(f"{template}.md.j2", "markdown", **context, figure=figure)
