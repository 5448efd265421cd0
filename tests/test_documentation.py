"""What the documentation names is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from labelmill import Client

_ROOT = Path(__file__).parents[1]
_DOCS = ("database", "evaluation", "input", "prompts", "rate-limit", "reliability")
_PAGES = ("CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md", *(f"docs/{page}.md" for page in _DOCS))
_PATH = re.compile(r"`([\w./-]*/[\w.-]*/?)`|`(\w+\.py)`")
_ELSEWHERE = re.compile(r"^(/|\.\./|v1/|models/|datasets/|sources/|logs/|redis/)")  # of Mistral's API, of a data folder


def _tracked() -> list[str]:
    folders = ("producer", "worker", "ops", "tests", "docs", ".ci")
    files = [path for folder in folders for path in (_ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return [*(str(path.relative_to(_ROOT)) for path in files), *(path.name for path in _ROOT.iterdir())]


@pytest.mark.parametrize("page", _PAGES)
def test_every_file_and_folder_that_a_page_names_is_there(page: str) -> None:
    paths = _tracked()
    named = {(match[1] or match[2]).rstrip("/") for match in _PATH.finditer((_ROOT / page).read_text())}
    missing = [
        name
        for name in sorted(named)
        if not _ELSEWHERE.match(name + "/") and not any(path == name or path.endswith("/" + name) for path in paths)
    ]
    assert missing == []


def test_the_page_of_the_client_names_every_call_with_its_arguments() -> None:
    page = (_ROOT / "docs/python-client.md").read_text()
    table = page[page.index("| call | arguments |") : page.index("Parameters have the names")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:] if line.startswith("|")]
    arguments = {name: cells[1] for cells in rows for name in re.findall(r"`(\w+)`", cells[0])}
    calls = {name: call for name, call in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert arguments.keys() == calls.keys() - {"close"}
    for name, call in calls.items():
        if name in arguments and "docstrings" not in arguments[name]:
            named = re.findall(r"`(\w+)`", arguments[name])
            assert named == list(inspect.signature(call).parameters)[1:], name
