"""No code finds files of datasets, sources or models past the storage."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import labelmill
import labelmill_worker

_PRODUCER, _WORKER = (Path(str(package.__file__)).parent for package in (labelmill, labelmill_worker))
_FOLDER = re.compile(r"(datasets|sources|models)/")
#: What reads where the root is: the settings, what opens it, and what speaks of it or keeps files of a host there.
_KNOW_THE_ROOT = {
    _PRODUCER / "core/settings.py",
    _PRODUCER / "core/storage/opening.py",
    _PRODUCER / "core/database/connecting.py",
    _PRODUCER / "doctor/disk.py",
    _PRODUCER / "services/current_context.py",
    _WORKER / "runtime/storage_check.py",
    _WORKER / "runtime/flower/flowerconfig.py",
}
_NAMES_FOLDERS = _PRODUCER / "core/storage/references.py"
_MAKE_STORAGES = {_PRODUCER / "core/storage/opening.py", _PRODUCER / "services/context.py"}


def _sources() -> Iterator[Path]:
    for package in (_PRODUCER, _WORKER):
        yield from sorted(package.rglob("*.py"))


def _faults(tree: ast.AST, path: Path) -> list[str]:
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("data_dir", "data_path") and path not in _KNOW_THE_ROOT:
            found.append(f"{node.lineno}: reads {node.attr}")
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
            and _FOLDER.match(node.value)
            and path != _NAMES_FOLDERS
        ):
            found.append(f"{node.lineno}: names {node.value!r}")
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") in ("LocalStorage", "S3Storage", "FileCache")
            and path not in _MAKE_STORAGES
        ):
            found.append(f"{node.lineno}: makes a storage")
    return found


def test_only_the_storage_knows_where_files_lie() -> None:
    found = {
        str(path): faults
        for path in _sources()
        if (faults := _faults(ast.parse(path.read_text(encoding="utf-8")), path))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "x = settings.data_path / 'a'",
        "x = context.data_dir",
        "f'datasets/{job_id}'",
        "x = 'models/a.zip'",
        "LocalStorage(x)",
    ],
)
def test_a_way_past_it_is_noticed(source: str) -> None:
    assert _faults(ast.parse(source), Path("elsewhere.py"))
