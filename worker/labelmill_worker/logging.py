"""Structured logs: lines for people on a terminal, one JSON object a line otherwise, the job on every line of a job.

What a task logs carries what is bound while it runs (`job_id`, `chunk`, `task`); Celery's own lines about a task are
given the same fields from the message they speak of. Keys and the passwords in URLs are taken out of the finished line,
so that no field, message or traceback can leak one.
"""

from __future__ import annotations

import ast
import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from labelmill.contracts.messages import SWEEP
from labelmill.contracts.redaction import secret_remover
from labelmill.contracts.settings import Settings

#: Libraries whose every line at INFO would bury our own.
_TALKATIVE = ("httpx", "httpcore", "urllib3", "datasets", "fsspec", "asyncio", "alembic")


def configure_logging(settings: Settings, *, level: int = logging.INFO) -> None:
    """Send this process's logs to stderr in the format that `settings` ask for. May be called again."""
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.PositionalArgumentsFormatter(),
                    structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )  # fmt: skip
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if as_text else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_worth_a_line)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow={"data"}), name_the_job],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
                redactor(settings),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def name_the_job(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Give Celery's lines about a task (received, succeeded, raised) the job's fields, from the task's arguments."""
    del logger, name
    about = event.pop("data", None)
    if not isinstance(about, dict) or not str(about.get("name", "")).startswith("labelmill."):
        return event
    event.setdefault("task", about["name"])
    for field, value in _arguments(about.get("kwargs")).items():
        if field in {"job_id", "chunk"}:
            event.setdefault(field, value)
    return event


def _arguments(written: object) -> dict[str, Any]:
    # Celery hands over the text of the arguments, possibly cut short
    try:
        read = ast.literal_eval(written) if isinstance(written, str) else written
    except (ValueError, SyntaxError):
        return {}
    return read if isinstance(read, dict) else {}


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    # a sweep comes every few seconds; only its trouble is news
    about = getattr(record, "data", None)
    is_sweep = isinstance(about, dict) and about.get("name") == SWEEP
    is_beat = record.name == "celery.beat" and record.getMessage().startswith("Scheduler: Sending due task sweep")
    return record.levelno > logging.INFO or not (is_sweep or is_beat)


def redactor(settings: Settings) -> Callable[[WrappedLogger, str, Any], str]:
    """The last step of every line: takes out keys and passwords, wherever they stand."""
    redact = secret_remover(settings)

    def redact_line(logger: WrappedLogger, name: str, line: Any) -> str:
        del logger, name
        return redact(str(line))

    return redact_line
