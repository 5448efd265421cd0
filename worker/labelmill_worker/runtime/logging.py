"""Structured logs: lines for people on a terminal, one JSON object a line otherwise, the job on every line of a job.

What a task logs carries what is bound while it runs (`job_id`, `chunk`, `task`); Celery's own lines about a task are
given the same fields from the message they speak of. Keys and the passwords in URLs are taken out of the finished line,
so that no field, message or traceback can leak one. Long fields are cut, and in lines for people no character reaches a
terminal that it would obey. Whatever goes wrong with a line, the process goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from labelmill.contracts.control_characters import visible, visible_line
from labelmill.contracts.messages import SWEEP, named_job
from labelmill.core.redaction import secret_remover
from labelmill.core.settings import Settings

#: Libraries whose every line at INFO would bury our own.
_TALKATIVE = ("httpx2", "httpcore2", "urllib3", "datasets", "fsspec", "asyncio", "alembic")

_MAX_FIELD_CHARS = 20_000


def configure_logging(settings: Settings, *, level: int = logging.INFO) -> None:
    """Send this process's logs to stderr in the format that `settings` ask for. May be called again."""
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if as_text else structlog.processors.JSONRenderer()
    )
    handler = UnfailingHandler(sys.stderr)
    handler.addFilter(_is_worth_a_line)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow={"data"}), name_the_job],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                cut_long_fields,
                *([show_control_characters] if as_text else []),  # JSON escapes them itself
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


class UnfailingHandler(logging.StreamHandler[TextIO]):
    """Writes a line, or that it could not be written: nothing that is logged may end a worker."""

    def handle(self, record: logging.LogRecord) -> Any:
        """As every handler's, filters and formatting included. Never raises."""
        try:
            return super().handle(record)
        except Exception as error:  # noqa: BLE001 - RecursionError from within a filter, say
            self._say(record, error)
            return False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """What `emit` met, which has no traceback of ours either."""
        self._say(record, sys.exc_info()[1])

    def _say(self, record: logging.LogRecord, error: BaseException | None) -> None:
        with contextlib.suppress(Exception):  # stderr itself may be gone
            name = str(record.name)[:100]
            self.stream.write(
                json.dumps({"event": f"a line of {name} could not be logged: {type(error).__name__}"}) + "\n"
            )
            self.flush()


def cut_long_fields(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Cut what is longer than a person would read; of a traceback the start and the end stay."""
    del logger, name
    for field, value in event.items():
        if isinstance(value, str) and len(value) > _MAX_FIELD_CHARS:
            half = _MAX_FIELD_CHARS // 2
            event[field] = f"{value[:half]}\n… {len(value) - 2 * half} characters …\n{value[-half:]}"
    return event


def show_control_characters(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Make visible what a terminal would obey; a line stays a line, but for tracebacks."""
    del logger, name
    return {
        visible_line(field): (visible if field == "exception" else visible_line)(value)
        if isinstance(value, str)
        else value
        for field, value in event.items()
    }


def name_the_job(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Give Celery's lines about a task (received, succeeded, raised) the job's fields, from the task's arguments."""
    del logger, name
    about = event.pop("data", None)
    if not isinstance(about, dict) or not str(about.get("name", "")).startswith("labelmill."):
        return event
    event.setdefault("task", about["name"])
    job_id, chunk = named_job(about.get("kwargs"))
    for field, value in (("job_id", job_id), ("chunk", chunk)):
        if value is not None:
            event.setdefault(field, value)
    return event


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    # a sweep may come every few seconds; only its trouble is news
    about = getattr(record, "data", None)
    is_sweep = isinstance(about, dict) and about.get("name") == SWEEP
    return record.levelno > logging.INFO or not is_sweep


def redactor(settings: Settings) -> Callable[[WrappedLogger, str, Any], str]:
    """The last step of every line: takes out keys and passwords, wherever they stand."""
    redact = secret_remover(settings)

    def redact_line(logger: WrappedLogger, name: str, line: Any) -> str:
        del logger, name
        return redact(str(line))

    return redact_line
