"""A program that the vocabulary cannot express at first, in simpler operations of torch's own."""

import re
import warnings

import torch

from pi_sim.graph.aten.registry import TRANSLATORS, aten_name


def has_inplace_ops(program: torch.export.ExportedProgram) -> bool:
    """Whether it changes values in place, as `x += y` does; a constant that is detached in place keeps its value."""
    return any(re.search(r"[a-z]_$", aten_name(node)) and aten_name(node) != "detach_" for node in program.graph.nodes)


def decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without changes in place, and with unknown operations by torch's definition, if they have one."""
    known = torch.export.default_decompositions()
    unknown = {node.target for node in program.graph.nodes if aten_name(node) and aten_name(node) not in TRANSLATORS}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        simpler: torch.export.ExportedProgram = program.run_decompositions(
            {each: known[each] for each in unknown if each in known}
        )
        return simpler
