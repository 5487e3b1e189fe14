"""The command line inside the test's process, and code in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from pi_sim.cli import main

WITHOUT_CRYPTEN = "import sys; sys.modules['crypten'] = None; from pi_sim.cli import main; main({})"
"""A call of the command line, where CrypTen is not installed."""


def invoke(*arguments: str | Path) -> Result:
    """Call `pi-sim` with these arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    """Check that the command refused its input; return its sentence."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
