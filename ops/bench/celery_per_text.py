"""The naive second reference: one Celery task per text, each a call and an insert of its own.

Used as a Celery application (`celery -A celery_per_text worker --pool threads -c 100`) and as the script that enqueues
the rows of a file and waits until they are all in the table.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import httpx2
import orjson
import psycopg
from celery import Celery

app = Celery("celery_per_text", broker=os.environ.get("BENCH_BROKER", "redis://127.0.0.1:6379/0"))
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1)
_DATABASE = os.environ.get("BENCH_DATABASE", "")
_SERVER = os.environ.get("BENCH_SERVER", "")
_mine = threading.local()
_TABLE = "CREATE TABLE naive_rows (row BIGINT PRIMARY KEY, external_id TEXT, label TEXT, score REAL, scores {blob})"


def connection() -> Any:
    """This thread's own connection to the database."""
    if not hasattr(_mine, "connection"):
        if _DATABASE.startswith("sqlite"):
            _mine.connection = sqlite3.connect(_DATABASE.removeprefix("sqlite:///"), timeout=60)
            _mine.connection.execute("PRAGMA journal_mode=WAL")
        else:
            _mine.connection = psycopg.connect(_DATABASE)
    return _mine.connection


@app.task(name="classify_text")
def classify_text(row: int, external_id: str, text: str) -> None:
    """Classify one text and write its row."""
    if not hasattr(_mine, "http"):
        _mine.http = httpx2.Client(headers={"Authorization": "Bearer bench"})
    body = {"model": "ft:classifier:bench:x", "input": [text]}
    response = _mine.http.post(f"{_SERVER}/v1/classifications", json=body)
    response.raise_for_status()
    scores = response.json()["results"][0]["intent"]["scores"]
    label = max(scores, key=scores.get)
    mark = "?" if _DATABASE.startswith("sqlite") else "%s"
    database = connection()
    database.execute(
        f"INSERT INTO naive_rows VALUES ({mark}, {mark}, {mark}, {mark}, {mark})",  # noqa: S608 - marks only
        (row, external_id, label, scores[label], array("f", scores.values()).tobytes()),
    )
    database.commit()


def main() -> None:
    """Enqueue the first rows of a file, wait for their answers, print what it took."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--rows", type=int, default=3000)
    options = arguments.parse_args()
    database = connection()
    database.execute(_TABLE.format(blob="BLOB" if _DATABASE.startswith("sqlite") else "BYTEA"))
    database.commit()
    start = time.perf_counter()
    with options.file.open("rb") as stream:
        for row, line in zip(range(options.rows), stream, strict=False):
            document = orjson.loads(line)
            classify_text.delay(row, document["id"], document["text"])
    while True:
        done = database.execute("SELECT count(*) FROM naive_rows").fetchone()[0]
        database.commit()
        if done >= options.rows:
            break
        time.sleep(0.05)
    print(orjson.dumps({"seconds": time.perf_counter() - start, "rows": options.rows}).decode())


if __name__ == "__main__":
    main()
