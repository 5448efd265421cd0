"""One very large batch, from a generator through the Python client and back. Prints what it takes as it goes.

    python ops/bench/scale.py --rows 100000000 | tee log        half an hour and some 25 GB on two cores
    python ops/bench/scale.py --keep log                        write the figures to docs/

PostgreSQL, two worker processes, 50 ms latency, 100 texts a request. At half of the rows one worker is killed and
another started in its place, so that recovery meets a large database. In the end: requests, rows in SQL, how long
`status` and the first result take, and all results read as batches of Arrow.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from canned_server import LABELS
from producer_side import peak_kb
from report import Figure, keep, show
from stack import Machine, Stack, text_of

from labelmill import Batch, Client

MODEL = "ft:classifier:bench:x"
_EVERY_S = 20.0


def texts(rows: int) -> Iterator[dict[str, object]]:
    """The rows of the batch, one at a time."""
    for row in range(rows):
        yield {"id": f"id-{row:09d}", "text": text_of(row)}


def submit(rows: int) -> dict[str, Any]:
    """Submit them all. Seconds and KiB are this process' own."""
    began = time.perf_counter()
    with Client() as client:
        batch = client.classify(texts(rows), MODEL, id_column="id")
    return {"batch": batch.id, "seconds": time.perf_counter() - began, "peak_kb": peak_kb()}


def read(batch_id: str) -> dict[str, Any]:
    """Read the results: the time of one status, of the first rows, and of all of them."""
    began = time.perf_counter()
    with Client() as client:
        batch = _batch(client, batch_id)
        batch.status()
        status_s = time.perf_counter() - began
        began, first_s, rows, labelled = time.perf_counter(), 0.0, 0, 0
        for records in batch.arrow(10_000, scores="none"):
            first_s = first_s or time.perf_counter() - began
            rows += records.num_rows
            labelled += records.num_rows - records.column("intent").null_count
    seconds = time.perf_counter() - began
    return {
        "status_s": status_s,
        "first_s": first_s,
        "seconds": seconds,
        "rows": rows,
        "labelled": labelled,
        "peak_kb": peak_kb(),
    }


def _batch(client: Client, batch_id: str) -> Batch:
    batch = client.job(batch_id)
    assert isinstance(batch, Batch)  # noqa: S101 - by its id
    return batch


def _show(event: str, **figures: object) -> None:
    print(orjson.dumps({"event": event} | figures).decode(), flush=True)


def _follow(stack: Stack, batch_id: str, rows: int, machine: Machine) -> None:
    began, last_done, is_killed = time.monotonic(), 0, False
    cpu_s = stack.worker_cpu_s() + stack.database_cpu_s()
    with Client(database_url=stack.database_url, broker_url=stack.env["LABELMILL_BROKER_URL"]) as client:
        while True:
            asked = time.perf_counter()
            document = _batch(client, batch_id).status()
            status_s = time.perf_counter() - asked
            done, now_cpu_s = rows - document["rows"]["pending"], stack.worker_cpu_s() + stack.database_cpu_s()
            _show(
                "running",
                seconds=round(time.monotonic() - began),
                done=done,
                status_s=round(status_s, 4),
                cpu_us_per_row=round((now_cpu_s - cpu_s) / max(1, done - last_done) * 1e6, 2),
                workers_kb=stack.worker_peaks_kb(),
                load=Path("/proc/loadavg").read_text().split()[0],
            )
            last_done, cpu_s = done, now_cpu_s
            if document["state"] not in {"running", "queued"}:
                _show("ended", state=document["state"], **machine.server.stats())
                return
            if not is_killed and done >= rows // 2:
                is_killed = True
                stack.workers[0].kill()
                stack.workers[0].wait()
                stack.workers[0] = machine.start_worker(stack, 9)
                cpu_s = stack.worker_cpu_s() + stack.database_cpu_s()
                _show("killed")
            time.sleep(_EVERY_S)


def figures(events: list[dict[str, Any]], note: str = "") -> list[Figure]:
    """What a run printed, as figures; `note` says what else the machine did."""
    running = [event for event in events if event["event"] == "running"]
    submitted, ended, written, reading = (
        next(event for event in events if event["event"] == name) for name in ("submitted", "ended", "written", "read")
    )
    rows = reading["rows"]
    tenth = max(1, len(running) // 10)
    costs = [event["cpu_us_per_row"] for event in running[1:-1]]
    first, last = median(costs[:tenth]), median(costs[-tenth:])
    peaks = [max(event["workers_kb"]) for event in (running[0], running[-1])]
    asked = [event["status_s"] for event in running]
    name = f"a batch of {rows:,} rows from a generator, postgresql"
    return [
        Figure(f"{name}, rows/s", [rows / (ended["last_s"] - ended["first_s"])], unit="rows/s", note=note),
        Figure(
            f"{name}, CPU of workers and database a row, last tenth over first",
            [last / first],
            1.1,
            at_most=True,
            note=f"{first:.1f} → {last:.1f} µs",
        ),
        Figure(
            f"{name}, peak memory of a worker, end over beginning",
            [peaks[1] / peaks[0]],
            1.1,
            at_most=True,
            note=f"{peaks[0] >> 10} → {peaks[1] >> 10} MiB",
        ),
        Figure(f"{name}, peak memory of the producer a row", [submitted["peak_kb"] * 1024 / rows], unit="bytes"),
        Figure(
            f"{name}, requests sent over needed",
            [ended["requests"] / -(-rows // 100)],
            1.0,
            at_most=True,
            note=f"{ended['requests'] + rows // -100:,} more: in flight in the worker that was killed",
        ),
        Figure(f"{name}, database a row", [written["bytes"] / rows], unit="bytes"),
        Figure(f"{name}, one status while it runs", asked, unit="s"),
        Figure(f"{name}, one status afterwards", [reading["status_s"]], unit="s"),
        Figure(f"{name}, first results", [reading["first_s"]], unit="s"),
        Figure(f"{name}, results as Arrow, rows/s", [rows / reading["seconds"]], unit="rows/s"),
        Figure(f"{name}, peak memory of reading", [reading["peak_kb"] / 1024], unit="MiB"),
    ]


def main() -> None:
    """Run by the command line's arguments."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=10_000_000)
    arguments.add_argument("--keep", type=Path, help="what a run printed: write its figures to docs/")
    arguments.add_argument("--note", default="", help="with --keep: what else the machine did")
    arguments.add_argument("--act", choices=["submit", "read"], help=argparse.SUPPRESS)
    arguments.add_argument("--batch", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.act:
        answer = submit(options.rows) if options.act == "submit" else read(options.batch)
        print(orjson.dumps(answer).decode())
        return
    if options.keep:
        events = [orjson.loads(line) for line in options.keep.read_bytes().splitlines()]
        kept = figures(events, options.note)
        show(kept)
        keep({"scale postgresql": kept}, events[-1]["rows"], 1)
        return
    with contextlib.ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory(prefix="labelmill-scale-"))
        machine = running.enter_context(Machine(Path(folder), "postgresql"))
        stack = running.enter_context(machine.running(2, {"LABELMILL_MAX_IN_FLIGHT": 50}))
        machine.server.reset(0.05, keep_texts=False)
        submitting = stack.start(__file__, "--act", "submit", "--rows", str(options.rows))
        submitted = orjson.loads(submitting.communicate()[0])
        _show("submitted", labels=len(LABELS), **submitted)
        _follow(stack, submitted["batch"], options.rows, machine)
        _show("written", rows=stack.count("prediction_rows"), bytes=stack.database_bytes())
        reading = stack.python(__file__, "--act", "read", "--batch", submitted["batch"], timeout_s=7200)
        _show("read", **reading)


if __name__ == "__main__":
    main()
