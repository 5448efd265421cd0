"""Logs: the job on every line, secrets on none."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from labelmill.core.settings import Settings
from labelmill_worker.runtime.logging import configure_logging


@pytest.fixture(autouse=True)
def _put_logging_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_of_a_task_carries_its_job_and_chunk(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    with structlog.contextvars.bound_contextvars(task="labelmill.classify", job_id="batch_1", chunk=3):
        structlog.get_logger().info("chunk closed", rows=100)
        logging.getLogger("aiohttp").warning("slow answer")
    ours, foreign = _lines(capsys)
    assert ours["event"] == "chunk closed"
    assert ours["rows"] == 100
    for line in (ours, foreign):
        assert (line["job_id"], line["chunk"], line["task"]) == ("batch_1", 3, "labelmill.classify")


def test_celerys_own_lines_about_a_task_carry_its_job(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    data = {"name": "labelmill.classify", "id": "u", "kwargs": "{'job_id': 'batch_1', 'v': 1, 'chunk': 3}"}
    logging.getLogger("celery.app.trace").info("Task %(name)s[%(id)s] succeeded", data, extra={"data": data})
    (line,) = _lines(capsys)
    assert line["event"] == "Task labelmill.classify[u] succeeded"
    assert (line["job_id"], line["chunk"]) == ("batch_1", 3)


def test_a_sweep_that_went_well_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    data = {"name": "labelmill.sweep", "id": "u", "kwargs": "{}"}
    logging.getLogger("celery.app.trace").info("Task succeeded", extra={"data": data})
    logging.getLogger("celery.app.trace").error("Task raised", extra={"data": data})
    assert [line["event"] for line in _lines(capsys)] == ["Task raised"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_keys_and_passwords_never_reach_the_log(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(
        Settings(log_format=log_format, mistral_api_key='sk-"very"-secret', wandb_api_key="wandb-secret")  # type: ignore[arg-type]
    )
    log = structlog.get_logger()
    try:
        raise ValueError('refused: Bearer sk-"very"-secret')
    except ValueError:
        log.exception("call failed", headers={"Authorization": 'Bearer sk-"very"-secret'}, tags=["wandb-secret"])
    log.warning("connecting", url="postgresql+psycopg://mill:pa$$w0rd@db:5432/mill")
    logging.getLogger("kombu").error("Cannot connect to %s", "redis://:hunter2@10.0.0.1:6379/0")
    written = capsys.readouterr().err
    for secret in ("very", "wandb-secret", "pa$$w0rd", "hunter2"):
        assert secret not in written
    assert "mill:***@db:5432/mill" in written
    assert "redis://:***@10.0.0.1" in written


class _Broken:
    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __str__(self) -> str:
        raise self._error("x")

    __repr__ = __str__


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize("error", [RecursionError, ValueError, UnicodeError, MemoryError])
def test_a_line_that_cannot_be_written_ends_nothing(
    log_format: str, error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Settings(log_format=log_format))
    logging.getLogger("celery.beat").info("%s", _Broken(error))  # the filter reads it
    logging.getLogger("celery.worker").error("%s and %d", _Broken(error), "x")
    logging.getLogger("celery.worker").error(
        "kept", extra={"data": {"name": "labelmill.train", "kwargs": _Broken(error)}}
    )
    structlog.get_logger().error("ours", field=_Broken(error))
    written = capsys.readouterr().err
    assert written.count("could not be logged") >= 2
    assert "kept" in written


def test_nothing_that_came_over_redis_is_evaluated_for_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    for kwargs in ("1" + "+1j" * 8_000, "[" * 50_000, "{" * 50_000, 7, ["x"]):
        data = {"name": "labelmill.classify", "kwargs": kwargs}
        logging.getLogger("celery.worker.strategy").info("received", extra={"data": data})
    assert [line["event"] for line in _lines(capsys)] == ["received"] * 5


def test_lines_for_people_hold_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="text"))
    hostile = "\x1b[2J\x07\x9b2J\u202egpj.exe\r\nforged line\u2028"
    structlog.get_logger().error(hostile, field=hostile, other=[hostile])
    try:
        raise ValueError(hostile)
    except ValueError:
        logging.getLogger("kombu").exception("foreign %s", hostile)
    written = capsys.readouterr().err
    assert not [letter for letter in written if not letter.isprintable() and letter != "\n"]
    assert "\nforged line" not in written.partition("Traceback")[0]
    assert "\\x1b[2J" in written


def test_long_fields_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json"))
    structlog.get_logger().error("x" * 500_000, field="y" * 500_000)
    (line,) = _lines(capsys)
    assert len(json.dumps(line)) < 50_000
