"""Provenance: the command, the code and the libraries behind a record or a cached price; cheap to import."""

import hashlib
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import click

from pi_sim import __version__

ARGV = "pi_sim.argv"
"""Key of the command line in the metadata of click's context."""
PACKAGE = Path(__file__).parent
CODE, LIBRARIES = ("graph", "mpc", "cost", "zoo"), ("torch", "transformers", "crypten")
"""Packages of pi-sim and libraries that derived prices and graphs depend on."""
RECORDED = ("torch", "crypten", "transformers", "tokenizers", "numpy")
"""Libraries whose versions a record holds."""


def command_line() -> tuple[str, ...] | None:
    """Return the words of the running pi-sim command; None where Python code calls."""
    context = click.get_current_context(silent=True)
    words = context.find_root().meta.get(ARGV) if context else None
    return tuple(words) if words else None


@cache
def code_fingerprint() -> str:
    """Return one hash over the code and the versions of libraries that prices and graphs depend on."""
    sources = sorted(path for part in CODE for path in (PACKAGE / part).rglob("*.py"))
    versions = ((_version(name) or "none").encode() for name in LIBRARIES)
    return hashlib.sha256(b"".join([*(path.read_bytes() for path in sources), *versions])).hexdigest()


@cache
def git_commit() -> str | None:
    """Return the commit of the checkout that this code lies in; None for an installed package."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, pi-sim and the libraries that results depend on."""
    libraries = {name: version for name in RECORDED if (version := _version(name))}
    return {"python": platform.python_version(), "pi-sim": __version__, **libraries}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the CPU's name as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
