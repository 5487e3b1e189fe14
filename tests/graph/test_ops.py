"""The vocabulary: its definitions agree with their references, and one definition and one kernel make an operation."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import torch

from pi_sim.graph.ops import Op
from pi_sim.graph.vocabulary import VOCABULARY
from pi_sim.inference.bench.workloads import draw_operands, evaluate_reference, example_workload
from pi_sim.mpc.kernels import KERNELS
from pi_sim.records import BenchSize

SIZES = BenchSize(tokens=4, width=8, heads=2, vocabulary=6)
ROOT = Path(__file__).parents[2]

DEFINITION = """
define("exp", "elementwise", reference=lambda x: x.exp(), example=hidden_layer, aten="exp")
"""
KERNEL = '''
"""exp(x)."""

from pi_sim.mpc.kernels.costs import exp_cost
from pi_sim.mpc.kernels.registry import kernel

@kernel("exp", "limit", cost=lambda d: exp_cost(d).parallel(d.elements))
def exp(rt, x):
    """Return (1 + x / 2^n)^(2^n) by n squarings, a number that the settings state."""
    return x.exp()
'''
USE = """
import torch
from pi_sim import specs
from pi_sim.cost.pricing import op_coverage, price_op
from pi_sim.graph.capture import trace_module
from pi_sim.inference.bench.workloads import list_workloads
from pi_sim.records import BenchSize
from tests.helpers.equation import assert_equation, normal, protocol_with
from tests.helpers.two_processes import TwoParties

class Exponential(torch.nn.Module):
    def forward(self, x):
        return x.exp()

if __name__ == "__main__":
    graph = trace_module(Exponential(), (torch.zeros(2, 3),), {})
    assert [node.op.name for node in graph.nodes] == ["exp", "reveal"]
    for name in ("crypten", "shaft"):
        protocol = specs.load_executable_protocol(name)
        assert op_coverage("exp", protocol) == "derived"
        assert price_op(graph.nodes[0].op, protocol).cost.rounds == 8
    assert "exp" in [workload.name for workload in list_workloads(BenchSize())]
    two_parties = TwoParties()
    for protocol in ("crypten", protocol_with(settings={"exp_iterations": 9})):
        assert_equation(two_parties, "exp", [normal(1, 2, 3)], atol=0.1, protocol=protocol)
    two_parties.close()
    print("equal")
"""
LISTING = """
import sys
from pi_sim.cli import main

main(["protocols", "--format", "json"], standalone_mode=False)
assert "torch" not in sys.modules
"""


def test_every_operation_has_a_kernel() -> None:
    assert VOCABULARY.keys() == {op for op, _ in KERNELS}


@pytest.mark.parametrize("name", VOCABULARY)
def test_a_definition_states_the_shape_of_its_result(name: str) -> None:
    workload = example_workload(name, SIZES)
    operands = draw_operands(workload.operands)
    assert [tuple(operand.shape) for operand in operands] == list(workload.op.shapes)
    assert tuple(evaluate_reference(workload, operands).shape) == workload.op.result_shape


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("matmul", ((2, 3), (3, 4))),
        ("matmul", ((2, 1, 5, 3), (4, 3, 6))),
        ("linear", ((5, 3), (3, 4))),
        ("linear", ((3,), (3, 4), (4,))),
        ("multiply", ((2, 1, 3), (4, 1))),
        ("add", ((), (3,))),
    ],
)
def test_shapes_of_results_follow_torch(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    value = VOCABULARY[name].reference(*map(torch.zeros, shapes))
    assert Op(name, shapes, (True,) * len(shapes)).result_shape == tuple(value.shape)


@pytest.mark.parties
def test_a_definition_and_a_kernel_add_an_operation(tmp_path: Path) -> None:
    """In a copy of the package: captured, priced, computed by two parties, and listed without torch."""
    package = tmp_path / "pi_sim"
    copytree(ROOT / "pi_sim", package, ignore=ignore_patterns("__pycache__"))
    for facts in ("protocols", "models"):
        (tmp_path / facts).symlink_to(ROOT / facts)
    with (package / "graph/vocabulary.py").open("a", encoding="utf-8") as file:
        file.write(DEFINITION)
    (package / "mpc/kernels/exponential.py").write_text(KERNEL, encoding="utf-8")
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT)))}
    command = [sys.executable, str(tmp_path / "use.py")]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.stdout == "equal\n", process.stderr
    command = [sys.executable, "-c", LISTING]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    coverage = {entry["name"]: entry["coverage"]["exp"] for entry in json.loads(process.stdout)}
    assert coverage["crypten"] == coverage["lean"] == "derived"
