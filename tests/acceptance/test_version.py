"""The version is told at once."""

from __future__ import annotations

import subprocess
import sys

from labelmill import __version__

_PROGRAM = """
import runpy, sys
sys.argv = ["labelmill", "--version"]
runpy.run_module("labelmill", run_name="__main__")
print(sorted(sys.modules.keys() & {"pydantic", "rich", "sqlalchemy", "typer"}))
"""


def test_the_version_is_told_without_loading_the_commands() -> None:
    told = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True).stdout
    assert told == f"labelmill {__version__}\n[]\n"
