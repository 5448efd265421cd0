"""Logs: the job on every line, secrets on none."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from labelmill.contracts.settings import Settings
from labelmill_worker.logging import configure_logging


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
