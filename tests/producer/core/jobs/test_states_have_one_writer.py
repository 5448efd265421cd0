"""No code writes the state of a job or of a chunk, or a line of `events`, past the functions that are there for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import labelmill
import labelmill_worker

_JOBS_CORE = Path(labelmill.__file__).parent / "core" / "jobs"
_WRITERS = {_JOBS_CORE / name for name in ("transitions.py", "chunk_transitions.py", "events.py")}
#: Where a chunk is inserted, with its first state.
_INSERTS_CHUNKS = Path(labelmill.__file__).parent / "core" / "chunks" / "writer.py"
_STATED = {"DatasetRow", "TrainingRow", "BatchRow", "EvaluationRow", "ChunkRow"}
_TABLES = "datasets|trainings|batches|evaluations|chunks"


def _sources() -> Iterator[Path]:
    for package in (labelmill, labelmill_worker):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            if "migrations" not in path.parts:
                yield path


def _root(call: ast.expr) -> ast.Call | None:
    """The innermost call of a chain: `update(T)` of `update(T).where(…).values(…)`."""
    while isinstance(call, ast.Call):
        if not isinstance(call.func, ast.Attribute):
            return call
        call = call.func.value
    return None


def _faults(source: str) -> list[str]:
    """What the source writes past the transitions, by line."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "insert" and any(getattr(argument, "id", "") == "EventRow" for argument in node.args):
            found.append(f"{node.lineno}: inserts into events")
        if name not in {"values", "update", "insert"}:
            continue
        root = _root(node)
        tables = {getattr(argument, "id", "") for argument in root.args} if root else set()
        if tables == {"ModelRow"}:
            continue  # whether a model version may be used is no job's state
        keys = {keyword.arg for keyword in node.keywords} | {
            key.value
            for argument in node.args
            for part in ast.walk(argument)
            if isinstance(part, ast.Dict)
            for key in part.keys
            if isinstance(key, ast.Constant)
        }
        if "state" in keys:
            found.append(f"{node.lineno}: writes a state")
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and _writes_jobs(function):
            found += [
                f"{part.lineno}: has a state among the values"
                for part in ast.walk(function)
                if isinstance(part, ast.Dict)
                and any(isinstance(key, ast.Constant) and key.value == "state" for key in part.keys)
            ]
    for text in ast.walk(tree):
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            words = " ".join(text.value.split()).lower()
            if any(f"update {table} set" in words for table in _TABLES.split("|")) and "state" in words:
                found.append(f"{text.lineno}: writes a state in SQL")
    return found


def _writes_jobs(function: ast.FunctionDef) -> bool:
    """Whether it updates or inserts rows of a table that has a state, or of one that it is handed."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) in {"update", "insert"}
        and any(getattr(argument, "id", "") in _STATED | {"table", "EventRow"} for argument in node.args)
        for node in ast.walk(function)
    )


def test_only_the_transitions_write_states_and_events() -> None:
    faults = {str(path): found for path in _sources() if path not in _WRITERS and (found := _faults(path.read_text()))}
    assert faults == {}, "use core/jobs/transitions.py, chunk_transitions.py or events.py"


@pytest.mark.parametrize(
    "source",
    [
        "connection.execute(update(BatchRow).where(BatchRow.no == 1).values(state='failed'))",
        "connection.execute(update(table).values({'state': 'failed'}))",
        "connection.execute(insert(TrainingRow).values(id='x', state='queued'))",
        "def end():\n    values = {'state': 'failed'}\n    connection.execute(update(BatchRow).values(values))",
        "connection.execute(insert(EventRow).values(job_id='x'))",
        "connection.execute(text('UPDATE batches SET state = 1'))",
    ],
)
def test_a_write_past_the_transitions_is_noticed(source: str) -> None:
    assert _faults(source)


def test_only_one_module_inserts_chunks() -> None:
    inserting = {
        path
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "insert"
        and any(getattr(argument, "id", "") == "ChunkRow" for argument in node.args)
    }
    assert inserting == {_INSERTS_CHUNKS}


def test_a_worker_moves_jobs_only_by_the_function_that_logs_their_end() -> None:
    """Its own `store/transitions.py` alone calls the one of the core."""
    importing = {
        path.relative_to(Path(str(labelmill_worker.__file__)).parent).as_posix()
        for path in _sources()
        if path.is_relative_to(Path(str(labelmill_worker.__file__)).parent)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module
        in {"labelmill.core.jobs", "labelmill.core.jobs.transitions", "labelmill.core.jobs.inner_batches"}
        and {alias.name for alias in node.names} & {"transitions", "move_job", "inner_batches", "cancel_inner_batches"}
    }
    assert importing == {"store/transitions.py"}
