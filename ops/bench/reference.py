"""What an expert writes instead of Labelmill: one asyncio script with aiohttp and orjson, no queue.

Reads a JSONL file, calls the API with a fixed concurrency, writes one row per text with the database's fastest bulk
insert. No checks, no retries, no resumption. Prints one JSON line: seconds, rows, CPU seconds.

    python ops/bench/reference.py rows.jsonl http://127.0.0.1:9000 postgresql://… --texts 100
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psycopg

_BULK_ROWS = 5_000
_COLUMNS = "(batch_no, row, external_id, label, score, scores)"
_TABLE = """CREATE TABLE IF NOT EXISTS reference_rows (batch_no BIGINT, row BIGINT, external_id TEXT, label TEXT,
score REAL, scores {blob}, PRIMARY KEY (batch_no, row)) {options}"""

Row = tuple[Any, ...]
Block = list[tuple[int, str, str]]


def writer(url: str) -> Callable[[list[Row]], None]:
    """A function that inserts rows and commits, the fastest way there is."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_TABLE.format(blob="BLOB", options="WITHOUT ROWID"))

        def insert(rows: list[Row]) -> None:
            connection.executemany("INSERT INTO reference_rows VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.commit()

        return insert
    postgres = psycopg.connect(url)
    postgres.execute("SELECT pg_advisory_xact_lock(1)")  # two processes may create the table at the same moment
    postgres.execute(_TABLE.format(blob="BYTEA", options="").encode())
    postgres.commit()

    def copy_in(rows: list[Row]) -> None:
        with postgres.cursor() as cursor, cursor.copy(f"COPY reference_rows {_COLUMNS} FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)
        postgres.commit()

    return copy_in


def blocks(path: Path, texts: int) -> Iterator[Block]:
    """The file as lists of `(row, id, text)`, one for each request."""
    with path.open("rb") as stream:
        numbered = enumerate(map(orjson.loads, stream))
        while block := [(row, document["id"], document["text"]) for row, document in islice(numbered, texts)]:
            yield block


async def classify_file(path: Path, server: str, database: str, *, texts: int, concurrency: int, batch_no: int) -> int:
    """Do it all. Returns the number of rows written."""
    insert = writer(database)
    work = blocks(path, texts)
    answered: asyncio.Queue[list[Row] | None] = asyncio.Queue(maxsize=2 * concurrency)

    async def ask(session: aiohttp.ClientSession) -> None:
        for block in work:
            body = orjson.dumps({"model": "ft:classifier:bench:x", "input": [text for _, _, text in block]})
            async with session.post(f"{server}/v1/classifications", data=body) as response:
                response.raise_for_status()
                results = orjson.loads(await response.read())["results"]
            rows: list[Row] = []
            for (row, external_id, _), result in zip(block, results, strict=True):
                scores = result["intent"]["scores"]
                label = max(scores, key=scores.__getitem__)
                rows.append((batch_no, row, external_id, label, scores[label], array("f", scores.values()).tobytes()))
            await answered.put(rows)

    async def write() -> int:
        held: list[Row] = []
        count = 0
        while (rows := await answered.get()) is not None:
            held += rows
            if len(held) >= _BULK_ROWS:
                await asyncio.to_thread(insert, held)
                count += len(held)
                held = []
        if held:
            await asyncio.to_thread(insert, held)
        return count + len(held)

    headers = {"Authorization": "Bearer bench", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        writing = asyncio.create_task(write())
        await asyncio.gather(*(ask(session) for _ in range(concurrency)))
        await answered.put(None)
        return await writing


def main() -> None:
    """Run by its arguments and print what it took."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("server")
    arguments.add_argument("database")
    arguments.add_argument("--texts", type=int, default=100)
    arguments.add_argument("--concurrency", type=int, default=100)
    arguments.add_argument("--batch-no", type=int, default=1, help="of its own for each process at one database")
    options = arguments.parse_args()
    start = time.perf_counter()
    rows = asyncio.run(
        classify_file(
            options.file,
            options.server,
            options.database,
            texts=options.texts,
            concurrency=options.concurrency,
            batch_no=options.batch_no,
        )
    )
    seconds = time.perf_counter() - start
    print(orjson.dumps({"seconds": seconds, "rows": rows, "cpu_s": time.process_time()}).decode())


if __name__ == "__main__":
    main()
