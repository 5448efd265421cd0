"""Measures Labelmill against what one would write instead. Every figure is a ratio within one run on one machine.

    python ops/bench/run.py                              everything, 1,000,000 rows, five runs: an hour
    python ops/bench/run.py --only bulk --rows 20000 --runs 1 --database sqlite

Sides take turns, run by run; medians with the smallest and the largest run. Results are kept in `docs/benchmarks.json`
(measurement by measurement, so parts can be run again) and shown in `docs/benchmarks.md`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from canned_server import LABELS
from report import Figure, keep, show
from stack import Machine, Stack, environment, input_file, labelled_file
from start_up import cpu_s, processes

REFERENCE = Path(__file__).parent / "reference.py"
LATENCY = Path(__file__).parent / "latency.py"
CLIENTS = Path(__file__).parent / "public_clients.py"
PUBLIC_CLIENTS = {"flexllm": "flexllm==0.17.10", "curator": "bespokelabs-curator==0.1.31"}
RAW_MODEL = "ft:classifier:bench:x"
NAIVE = Path(__file__).parent / "celery_per_text.py"
MIB = 1024


@dataclass(frozen=True)
class Plan:
    """How large and how often."""

    machine: Machine
    rows: int
    runs: int


def _reference(stack: Stack, plan: Plan, rows: Path, texts: int) -> dict[str, Any]:
    return stack.python(
        REFERENCE, rows, plan.machine.server.url, stack.database_url, "--texts", str(texts), "--concurrency", "100"
    )


def _two_references(stack: Stack, plan: Plan, halves: list[Path], texts: int) -> dict[str, float]:
    """Two processes of the reference at once, half of the rows and of the requests in flight each."""
    processes = [
        stack.start(
            *(REFERENCE, half, plan.machine.server.url, stack.database_url),
            *("--texts", str(texts), "--concurrency", "50", "--batch-no", str(number)),
        )
        for number, half in enumerate(halves)
    ]
    printed = [orjson.loads(process.communicate()[0]) for process in processes]
    return {
        "seconds": max(one["seconds"] for one in printed),
        "cpu_s": sum(one["cpu_s"] for one in printed),
        "rows": sum(one["rows"] for one in printed),
    }


def _labelmill(
    stack: Stack, plan: Plan, rows: Path, *, latency_s: float, rate: float = 0, model: str = RAW_MODEL
) -> dict[str, Any]:
    """Submit, wait for the end. Seconds: `total` from the start of submission, `work` from the first request."""
    plan.machine.server.reset(latency_s, rate)
    worker_cpu, database_cpu = stack.worker_cpu_s(), stack.database_cpu_s()
    before = stack.count("prediction_rows")
    submitted = stack.producer("submit", rows, model)
    ended_at, ended = stack.wait_for(submitted["batch"]), time.monotonic()
    stats = plan.machine.server.stats()
    return (
        submitted
        | stats
        | {
            "total": ended_at - submitted["began_at"],
            "work": ended - stats["first_s"],
            "worker_cpu_s": stack.worker_cpu_s() - worker_cpu,
            "database_cpu_s": stack.database_cpu_s() - database_cpu,
            "written": stack.count("prediction_rows") - before,
            "peaks_kb": stack.worker_peaks_kb(),
        }
    )


def rate_limit(plan: Plan) -> list[Figure]:
    """Requests a second between the first and the last request, over the limit of 50."""
    rows = input_file(plan.machine.folder, min(plan.rows, 100_000))
    figures = []
    for workers in (1, 2, 4):
        shares, rejected = [], 0
        with plan.machine.running(workers, {"LABELMILL_REQUESTS_PER_SECOND": 50}) as stack:
            for _ in range(min(plan.runs, 3)):
                found = _labelmill(stack, plan, rows, latency_s=0.2, rate=50)
                shares.append((found["requests"] - 1) / (found["last_s"] - found["first_s"]) / 50)
                rejected += found["rejected"]
        figures.append(
            Figure(
                f"at a limit of 50 requests/s, {workers} worker processes, over the limit",
                shares,
                0.95,
                note=f"{rejected} answers 429",
            )
        )
    return figures


def bulk(plan: Plan) -> list[Figure]:
    """No limit, 50 ms, 100 texts a request, two worker processes of 50 requests, over the reference with 100."""
    rows = input_file(plan.machine.folder, plan.rows)
    totals, works, ours, theirs, sent = [], [], [], [], []
    cpu: list[float] = []
    reference_cpu: list[float] = []
    database_cpu: list[float] = []
    for _ in range(plan.runs):
        with plan.machine.database_only() as stack:
            plan.machine.server.reset(0.05)
            reference = _reference(stack, plan, rows, 100)
        with plan.machine.running(2, {"LABELMILL_MAX_IN_FLIGHT": 50}) as stack:
            found = _labelmill(stack, plan, rows, latency_s=0.05)
        if found["written"] != plan.rows or found["distinct"] != plan.rows:
            raise RuntimeError(f"{found['written']} of {plan.rows} rows written")
        totals.append(reference["seconds"] / found["total"])
        works.append(reference["seconds"] / found["work"])
        ours.append(plan.rows / found["work"])
        theirs.append(plan.rows / reference["seconds"])
        sent.append(found["requests"] / -(-plan.rows // 100))
        cpu.append(found["worker_cpu_s"] / plan.rows * 1e6)
        database_cpu.append(found["database_cpu_s"] / plan.rows * 1e6)
        reference_cpu.append(reference["cpu_s"] / plan.rows * 1e6)
    name = f"100 texts a request, {plan.rows:,} rows, {plan.machine.database}"
    return [
        Figure(f"{name}, over the reference", works, 1.0, note="from the first request to the last row, like the next"),
        Figure(f"{name}, Labelmill, rows/s", ours, unit="rows/s"),
        Figure(f"{name}, reference, rows/s", theirs, unit="rows/s"),
        Figure(f"{name}, submission included, over the reference", totals),
        Figure(f"{name}, CPU of both workers a row", cpu, unit="µs"),
        Figure(f"{name}, CPU of the database a row", database_cpu, unit="µs"),
        Figure(f"{name}, CPU of the reference a row", reference_cpu, unit="µs"),
        Figure(f"{name}, requests sent over needed", sent, 1.0, at_most=True),
    ]


def two_references(plan: Plan) -> list[Figure]:
    """As `bulk`, over two processes of the reference with half of the rows each."""
    rows = input_file(plan.machine.folder, plan.rows)
    half = plan.rows // 2
    halves = [
        input_file(plan.machine.folder, half),
        input_file(plan.machine.folder, plan.rows - half, first=half),
    ]
    ratios, ours, theirs = [], [], []
    for _ in range(plan.runs):
        with plan.machine.database_only() as stack:
            plan.machine.server.reset(0.05)
            reference = _two_references(stack, plan, halves, 100)
        if reference["rows"] != plan.rows:
            raise RuntimeError(f"the references wrote {reference['rows']} of {plan.rows} rows")
        with plan.machine.running(2, {"LABELMILL_MAX_IN_FLIGHT": 50}) as stack:
            found = _labelmill(stack, plan, rows, latency_s=0.05)
        ratios.append(reference["seconds"] / found["work"])
        ours.append(plan.rows / found["work"])
        theirs.append(plan.rows / reference["seconds"])
    name = f"100 texts a request, {plan.rows:,} rows, {plan.machine.database}"
    return [
        Figure(f"{name}, over two processes of the reference", ratios, 0.9),
        Figure(f"{name}, Labelmill beside them, rows/s", ours, unit="rows/s"),
        Figure(f"{name}, two processes of the reference, rows/s", theirs, unit="rows/s"),
    ]


def one_text(plan: Plan) -> list[Figure]:
    """No limit, 50 ms, one text a request, 100 requests at a time, 10,000 rows."""
    count = min(plan.rows, 10_000)
    rows = input_file(plan.machine.folder, count)
    settings = {"LABELMILL_TEXTS_PER_REQUEST": 1, "LABELMILL_MAX_IN_FLIGHT": 100}
    ratios, ours, theirs, sent = [], [], [], []
    for _ in range(plan.runs):
        with plan.machine.database_only() as stack:
            plan.machine.server.reset(0.05)
            reference = _reference(stack, plan, rows, 1)
        with plan.machine.running(1, settings) as stack:
            found = _labelmill(stack, plan, rows, latency_s=0.05)
        ratios.append(reference["seconds"] / found["work"])
        ours.append(count / found["work"])
        theirs.append(count / reference["seconds"])
        sent.append(found["requests"] / count)
    name = f"one text a request, {count:,} rows, {plan.machine.database}"
    return [
        Figure(f"{name}, over the reference", ratios, 0.85, note="one worker process"),
        Figure(f"{name}, Labelmill, rows/s", ours, unit="rows/s"),
        Figure(f"{name}, reference, rows/s", theirs, unit="rows/s"),
        Figure(f"{name}, requests sent over needed", sent, 1.0, at_most=True),
    ]


def clients(plan: Plan) -> list[Figure]:
    """No limit, 50 ms, one chat request a text, 100 at a time, 2,000 texts: a prompted model against public clients."""
    count = min(plan.rows, 2_000)
    rows = input_file(plan.machine.folder, count)
    figures = []
    speeds: dict[str, list[float]] = {}
    for _ in range(min(plan.runs, 3)):
        with plan.machine.running(1, {"LABELMILL_MAX_IN_FLIGHT": 100}) as stack:
            labelled = labelled_file(plan.machine.folder, LABELS)
            stack.labelmill("prepare", "bench", labelled, "--target", "intent=intent", "--wait")
            stack.labelmill("train", "bench", "--dataset", "bench", "--method", "prompt", "--yes", "--wait")
            found = _labelmill(stack, plan, rows, latency_s=0.05, model="bench")
            speeds.setdefault("Labelmill", []).append(count / found["work"])
            for name, requirement in PUBLIC_CLIENTS.items():
                python = environment(plan.machine.folder, requirement)
                if python is None:
                    continue
                plan.machine.server.reset(0.05)
                other = stack.python(CLIENTS, name, rows, plan.machine.server.url, interpreter=python)
                if other["rows"] != count:
                    raise RuntimeError(f"{name} brought {other['rows']} of {count} answers")
                speeds.setdefault(name, []).append(count / other["seconds"])
    for name, values in speeds.items():
        shown = PUBLIC_CLIENTS.get(name, "Labelmill")
        if name != "Labelmill":
            ratios = [ours / theirs for ours, theirs in zip(speeds["Labelmill"], values, strict=True)]
            figures.append(Figure(f"one chat a text, {count:,} rows, over {shown}", ratios, 1.5))
        figures.append(Figure(f"one chat a text, {count:,} rows, {shown}, rows/s", values, unit="rows/s"))
    return figures


def latency(plan: Plan) -> list[Figure]:
    """One text through `Client.classify`, `wait` and `results`, over the API's own 50 ms; 50 texts, two workers."""
    bound_ms = {"sqlite": 100, "postgresql": 150}[plan.machine.database]
    middles, tails = [], []
    for _ in range(plan.runs):
        with plan.machine.running(2) as stack:
            plan.machine.server.reset(0.05)
            seconds = sorted(stack.python(LATENCY, RAW_MODEL, "50")["seconds"])
        over_ms = [(each - 0.05) * 1e3 for each in seconds]
        middles.append(median(over_ms))
        tails.append(over_ms[len(over_ms) * 9 // 10 - 1])
    name = f"one text through the client, {plan.machine.database}, over the API's 50 ms"
    return [
        Figure(f"{name}, median of 50", middles, bound_ms, at_most=True, unit="ms"),
        Figure(f"{name}, 90th percentile", tails, unit="ms"),
    ]


def start_up(plan: Plan) -> list[Figure]:
    """CPU time of short processes, ten of each kind. Only a quiet machine measures it: others' load makes it longer."""
    row = input_file(plan.machine.folder, 1)
    bounds = {"Client": 0.6, "--version": 0.35}
    with plan.machine.without_workers() as stack:
        batch_id = stack.producer("submit", row)["batch"]
        return [
            Figure(
                f"CPU of {name}, {plan.machine.database}",
                cpu_s(command, stack.env, 10),
                next((bound for word, bound in bounds.items() if word in name), None),
                at_most=True,
                unit="s",
                note="ten processes",
            )
            for name, command in processes(batch_id, row, RAW_MODEL).items()
        ]


def celery(plan: Plan) -> list[Figure]:
    """One Celery task per text, against Labelmill with one text a request and with 100."""
    count = min(plan.rows, 3_000)
    few, many = input_file(plan.machine.folder, count), input_file(plan.machine.folder, min(plan.rows, 100_000))
    naive, single, listed = [], [], []
    for _ in range(min(plan.runs, 3)):
        with plan.machine.running(1, naive=True) as stack:
            plan.machine.server.reset(0.05)
            naive.append(count / stack.python(NAIVE, few, "--rows", str(count))["seconds"])
        with plan.machine.running(1, {"LABELMILL_TEXTS_PER_REQUEST": 1, "LABELMILL_MAX_IN_FLIGHT": 100}) as stack:
            single.append(count / _labelmill(stack, plan, few, latency_s=0.05)["work"])
        with plan.machine.running(1) as stack:
            listed.append(min(plan.rows, 100_000) / _labelmill(stack, plan, many, latency_s=0.05)["work"])
    return [
        Figure(
            "over one Celery task per text, 100 texts a request",
            [one / other for one, other in zip(listed, naive, strict=True)],
            10.0,
        ),
        Figure(
            "over one Celery task per text, one text a request",
            [one / other for one, other in zip(single, naive, strict=True)],
        ),
        Figure("one Celery task per text (100 threads), rows/s", naive, unit="rows/s"),
    ]


def memory(plan: Plan) -> list[Figure]:
    """Peak memory of producer and workers at all rows over that at 20,000."""
    small, large = 20_000, plan.rows
    peaks = {}
    for count in (small, large):
        with plan.machine.running(2) as stack:
            found = _labelmill(stack, plan, input_file(plan.machine.folder, count), latency_s=0.05)
            output = plan.machine.folder / "results.jsonl"
            read = stack.producer("results", found["batch"], output)
            peaks[count] = (found["peak_kb"], max(found["peaks_kb"]), read["peak_kb"])
    allowed_kb = 16 * large / 1024
    name = f"at {large:,} rows over {small:,}"
    shown = [f"{a / MIB:.0f} → {b / MIB:.0f} MiB" for a, b in zip(peaks[small], peaks[large], strict=True)]
    producer = (peaks[large][0] - allowed_kb) / peaks[small][0]
    worker_name = f"peak memory of a worker {name}"
    producer_name = f"peak memory of the producer {name}, less 16 bytes a row"
    reader_name = f"peak memory of reading results {name}"
    return [
        Figure(worker_name, [peaks[large][1] / peaks[small][1]], 1.1, at_most=True, note=shown[1]),
        Figure(producer_name, [producer], 1.1, at_most=True, note=shown[0]),
        Figure(reader_name, [peaks[large][2] / peaks[small][2]], 1.1, at_most=True, note=shown[2]),
    ]


def submission(plan: Plan) -> list[Figure]:
    """Submission over a plain loop that copies one row per text. A fifth of the rows repeat an earlier text."""
    rows = input_file(plan.machine.folder, plan.rows, repeat_share=0.2)
    ratios, speeds = [], []
    for _ in range(plan.runs):
        with plan.machine.without_workers() as stack:
            plain = stack.producer("plain-submit", rows)["seconds"]
            ours = stack.producer("submit", rows)["seconds"]
        ratios.append(plain / ours)
        speeds.append(plan.rows / ours)
    name = f"submission of {plan.rows:,} rows, {plan.machine.database}"
    return [Figure(f"{name}, over a plain loop", ratios, 1.0), Figure(f"{name}, rows/s", speeds, unit="rows/s")]


def results(plan: Plan) -> list[Figure]:
    """Reading a batch back to JSONL over the database's own COPY of the join."""
    if plan.machine.database != "postgresql":
        return []
    rows = input_file(plan.machine.folder, plan.rows)
    ratios, speeds = [], []
    with plan.machine.running(2) as stack:
        batch = _labelmill(stack, plan, rows, latency_s=0.0)["batch"]
        stack.producer("plain-submit", rows)
        for _ in range(plan.runs):
            plain = stack.producer("plain-results", plan.machine.folder / "plain.txt")["seconds"]
            ours = stack.producer("results", batch, plan.machine.folder / "results.jsonl")["seconds"]
            ratios.append(plain / ours)
            speeds.append(plan.rows / ours)
    name = f"results of {plan.rows:,} rows to JSONL"
    return [
        Figure(f"{name}, over COPY of the join", ratios, 0.5),
        Figure(f"{name}, rows/s", speeds, unit="rows/s"),
    ]


def fairness(plan: Plan) -> list[Figure]:
    """A batch of 1,000 rows behind a large one, over alone; 50 requests/s, two worker processes."""
    large = input_file(plan.machine.folder, plan.rows)
    alone, behind = [], []
    with plan.machine.running(2, {"LABELMILL_REQUESTS_PER_SECOND": 50}) as stack:
        for run in range(plan.runs):
            small = input_file(plan.machine.folder, 1_000, first=800_000_000 + 1_000 * run)
            alone.append(_labelmill(stack, plan, small, latency_s=0.2, rate=50)["total"])
        plan.machine.server.reset(0.2, 50)
        stack.producer("submit", large)
        time.sleep(3)
        for run in range(plan.runs):
            small = input_file(plan.machine.folder, 1_000, first=810_000_000 + 1_000 * run)
            submitted = stack.producer("submit", small)
            behind.append(stack.wait_for(submitted["batch"], 300) - submitted["began_at"])
        rejected = plan.machine.server.stats()["rejected"]
    note = f"{min(alone):.1f} to {max(alone):.1f} s alone, {min(behind):.1f} to {max(behind):.1f} s behind"
    note += f"; {rejected} answers 429"
    ratios = [one / other for one, other in zip(behind, alone, strict=True)]
    return [Figure(f"1,000 rows behind {plan.rows:,}, time over alone", ratios, 2.5, at_most=True, note=note)]


def cache(plan: Plan) -> list[Figure]:
    """Batches with `--cache` whose texts were all answered before, over the plain batch that answered them; the first
    of them indexes its answers too. 50 ms, 100 texts a request, two worker processes."""
    rows = input_file(plan.machine.folder, plan.rows)
    first: list[float] = []
    later: list[float] = []
    for _ in range(plan.runs):
        with plan.machine.running(2, {"LABELMILL_MAX_IN_FLIGHT": 50}) as stack:
            plain = _labelmill(stack, plan, rows, latency_s=0.05)["total"]
            plan.machine.server.reset(0.05)
            for ratios in (first, later):
                submitted = stack.producer("submit", rows, RAW_MODEL, "--cache")
                ratios.append((stack.wait_for(submitted["batch"]) - submitted["began_at"]) / plain)
            if plan.machine.server.stats()["requests"]:
                raise RuntimeError("a text was sent that had its answer")
    name = f"--cache, all of {plan.rows:,} texts known, {plan.machine.database}, time over a plain batch"
    return [Figure(f"{name}, first", first), Figure(f"{name}, later", later)]


def growth(plan: Plan) -> list[Figure]:
    """Rows a second, submission included, as batches grow."""
    figures = []
    with plan.machine.running(2) as stack:
        for count in (1_000, 10_000, 100_000, 1_000_000):
            if count <= plan.rows:
                rows = input_file(plan.machine.folder, count)
                runs = plan.runs if count < 1_000_000 else 1
                totals = [_labelmill(stack, plan, rows, latency_s=0.05)["total"] for _ in range(runs)]
                speeds = [count / total for total in totals]
                name = f"a batch of {count:,} rows, submission included, {plan.machine.database}"
                figures.append(Figure(name, speeds, unit="rows/s"))
    return figures


MEASURES: dict[str, Callable[[Plan], list[Figure]]] = {
    "rate-limit": rate_limit,
    "bulk": bulk,
    "two-references": two_references,
    "one-text": one_text,
    "latency": latency,
    "start-up": start_up,
    "celery": celery,
    "memory": memory,
    "clients": clients,
    "submission": submission,
    "results": results,
    "fairness": fairness,
    "growth": growth,
    "cache": cache,
}
_ON_BOTH = {"bulk", "cache", "latency", "start-up"}  # the others are the same story on either database


def main() -> None:
    """Run by the command line's arguments."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", choices=sorted(MEASURES), action="append", help="repeatable; default: all")
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--database", choices=["sqlite", "postgresql"], help="default: what each measure needs")
    arguments.add_argument("--no-write", action="store_true", help="leave docs/ as it is")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    figures: dict[str, list[Figure]] = {}
    for database in [options.database] if options.database else ["postgresql", "sqlite"]:
        everything = options.database or database == "postgresql"
        names = [name for name in options.only or MEASURES if everything or name in _ON_BOTH]
        if not names:
            continue
        with (
            tempfile.TemporaryDirectory(prefix="labelmill-bench-") as folder,
            Machine(Path(folder), database) as machine,
        ):
            for name in names:
                start = time.monotonic()
                found = MEASURES[name](Plan(machine, options.rows, options.runs))
                figures[f"{name} {database}"] = found
                show(found)
                print(f"({name}, {database}: {time.monotonic() - start:.0f} s)", flush=True)
                if not options.no_write:
                    keep({f"{name} {database}": found}, options.rows, options.runs)
    print(orjson.dumps({name: [f.document() for f in found] for name, found in figures.items()}).decode())


if __name__ == "__main__":
    main()
