"""The wheel, built without a network and installed in an environment of its own, outside the checkout.

Dependencies come from the environment that runs the tests. Another Python takes part with what it has: the wheel is
compiled there, and used too if torch is installed.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import pi_sim

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSIONS = ("3.11", "3.12", "3.13")
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed; `make install` installs it")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def python(version: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel alone; skipped for a Python that is missing."""
    program = sys.executable if version == OWN else shutil.which(f"python{version}")
    if not program or subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"python{version} is not installed")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([program, "-m", "venv", str(folder)], check=True)
    interpreter = folder / "bin" / "python"
    subprocess.run([interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    return interpreter


def packages_of(version: str, python: Path) -> str:
    """Return the folder of packages that an environment's base has; skip where torch is not among them."""
    if version == OWN:
        return sysconfig.get_path("purelib")
    code = "import sys, sysconfig; print(sysconfig.get_path('purelib', vars={'base': sys.base_prefix}))"
    folder = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if not (Path(folder) / "torch").is_dir():
        pytest.skip(f"torch is not installed for python{version}")
    return folder


def test_the_wheel_has_the_facts_and_its_type_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    facts = ("models/relu_nonorm.toml", "models/configs/gpt2.json", "protocols/lean.toml")
    assert names >= {"pi_sim/py.typed", *(f"pi_sim/facts/{name}" for name in facts)}
    assert {name.split("/")[0] for name in names} == {"pi_sim", f"pi_sim-{pi_sim.__version__}.dist-info"}


@pytest.mark.slow
def test_every_module_compiles(python: Path) -> None:
    """Warnings of the compiler count as errors: each version has new ones."""
    folder = next((python.parents[1] / "lib").glob("python*/site-packages/pi_sim"))
    compiled = [python, "-W", "error", "-m", "compileall", "-q", "-f", folder]
    done = subprocess.run(compiled, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parties
def test_it_estimates_and_runs_outside_a_checkout(version: str, python: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": packages_of(version, python)}

    def pi_sim_prints(*arguments: str) -> str:
        command = [python.with_name("pi-sim"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    record = json.loads(pi_sim_prints("estimate", "--protocol", "lean", "--seq-len", "16", "--format", "json"))
    assert record["commit"] is None  # of an installed package, not of this checkout
    printed = pi_sim_prints("run", "two-party", "--protocol", "lean", "--seq-len", "16")
    assert f"{record['total']['bytes']:,}" in printed
    assert "NOT EQUAL" not in printed


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] == pi_sim.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["title"] == f"pi-sim: {PROJECT['description'][0].lower()}{PROJECT['description'][1:]}"
    assert citation["keywords"] == PROJECT["keywords"]


def test_every_python_that_is_promised_is_tested() -> None:
    promised = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if "Python :: 3." in name]
    assert tuple(promised) == VERSIONS
    assert PROJECT["requires-python"] == f">={VERSIONS[0]}"


def test_prices_need_no_training_stack() -> None:
    names = {requirement.partition(">=")[0] for requirement in PROJECT["dependencies"]}
    assert not names & {"accelerate", "datasets", "omegaconf", "pyarrow", "pyyaml"}
    extras = PROJECT["optional-dependencies"]
    assert {name.partition(">=")[0] for name in extras["crypten"]} == {"omegaconf", "pyyaml"}
    assert "accelerate>=1.1" in extras["train"]
