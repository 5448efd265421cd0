"""The producer's half of a measurement, in a process of its own, so that its time and memory are its own.

    python ops/bench/producer_side.py submit rows.jsonl          submit a batch
    python ops/bench/producer_side.py results BATCH out.jsonl    read it back
    python ops/bench/producer_side.py arrow BATCH                read it back as record batches
    python ops/bench/producer_side.py plain-submit rows.jsonl    the reference: one row per text by COPY
    python ops/bench/producer_side.py plain-results out.jsonl    the reference: COPY (SELECT … JOIN …) TO STDOUT

Each prints one JSON line. The database and the broker come from the environment, as for any producer.
"""

from __future__ import annotations

import gc
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg

from labelmill.core.database import connect
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import load_settings
from labelmill.services.batches import ClassifyRequest, accept_batch
from labelmill.services.context import ServiceContext
from labelmill.services.results.export import write_results
from labelmill.services.results.frames import result_batches
from labelmill.services.results.reading import read_result_lines
from labelmill.services.results.rows import ResultsRequest
from labelmill.services.submissions.accepted import start

_TEXTS = "CREATE TABLE plain_texts (row BIGINT PRIMARY KEY, external_id TEXT, text TEXT)"
_READ_BACK = """COPY (SELECT p.row, p.external_id, t.text, p.label, p.score, p.scores FROM prediction_rows p
JOIN plain_texts t ON t.row = p.row WHERE p.batch_no = (SELECT max(no) FROM batches) ORDER BY p.row) TO STDOUT"""


def peak_kb() -> int:
    """This process' largest resident memory so far."""
    return next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"
    )


def submit(file: str, model: str = "ft:classifier:bench:x", *options: str) -> dict[str, Any]:
    """Submit a batch as `labelmill classify` does. The only option is `--cache`."""
    settings = load_settings()
    context = ServiceContext(connect(settings.sql_url), MessageSender.connect(settings))
    began_at, began = time.time(), time.perf_counter()
    request = ClassifyRequest.of(file, model, id_column="id", cache="--cache" in options)
    batch = start(context, accept_batch(context, request))
    return {"seconds": time.perf_counter() - began, "began_at": began_at, "batch": batch.id}


def results(batch_id: str, output: str) -> dict[str, Any]:
    """Read a batch back as `labelmill results` does."""
    engine = connect(load_settings().sql_url)
    start = time.perf_counter()
    rows = write_results(read_result_lines(engine, batch_id), ["intent"], Path(output))
    return {"seconds": time.perf_counter() - start, "rows": rows}


def arrow(batch_id: str) -> dict[str, Any]:
    """Read a batch back as `Batch.arrow` does."""
    settings = load_settings()
    context = ServiceContext(connect(settings.sql_url), MessageSender.connect(settings))
    start = time.perf_counter()
    rows = sum(batch.num_rows for batch in result_batches(context, ResultsRequest(batch_id)))
    return {"seconds": time.perf_counter() - start, "rows": rows}


def plain_submit(file: str) -> dict[str, Any]:
    """A plain loop: one row per text, duplicates and all."""
    url = load_settings().sql_url
    start = time.perf_counter()
    if url.startswith("sqlite"):
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(_TEXTS)
        database.executemany("INSERT INTO plain_texts VALUES (?, ?, ?)", _numbered(file))
        database.commit()
    else:
        with psycopg.connect(url) as postgres, postgres.cursor() as cursor:
            cursor.execute(_TEXTS)
            with cursor.copy("COPY plain_texts FROM STDIN") as copy:
                for row in _numbered(file):
                    copy.write_row(row)
    return {"seconds": time.perf_counter() - start}


def _numbered(file: str) -> Iterator[tuple[int, str, str]]:
    with Path(file).open("rb") as stream:
        for row, line in enumerate(stream):
            document = orjson.loads(line)
            yield row, document["id"], document["text"]


def plain_results(output: str) -> dict[str, Any]:
    """Texts and answers, joined and ordered by the database, as its own COPY text."""
    start = time.perf_counter()
    with (
        psycopg.connect(load_settings().sql_url) as postgres,
        postgres.cursor() as cursor,
        cursor.copy(_READ_BACK) as copy,
        Path(output).open("wb") as stream,
    ):
        stream.writelines(copy)
    return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    act: dict[str, Callable[..., dict[str, Any]]] = {
        "submit": submit,
        "results": results,
        "arrow": arrow,
        "plain-submit": plain_submit,
        "plain-results": plain_results,
    }
    answer = act[sys.argv[1]](*sys.argv[2:])
    gc.freeze()  # as the command does: else Python looks for garbage at the end, while workers are measured
    print(orjson.dumps(answer | {"peak_kb": peak_kb()}).decode())
