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
from pathlib import Path
from statistics import median

import orjson
from plan import RAW_MODEL, Plan, run_batch
from report import Figure, keep, show
from stack import Machine, input_file
from start_up import cpu_s, processes
from throughput import bulk, celery, clients, one_text, rate_limit, two_references

LATENCY = Path(__file__).parent / "latency.py"
MIB = 1024


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


def memory(plan: Plan) -> list[Figure]:
    """Peak memory of producer and workers at all rows over that at 20,000."""
    small, large = 20_000, plan.rows
    peaks = {}
    for count in (small, large):
        with plan.machine.running(2) as stack:
            found = run_batch(stack, plan, input_file(plan.machine.folder, count), latency_s=0.05)
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
    """Reading a batch back to JSONL over the database's own COPY of the join; as Arrow."""
    if plan.machine.database != "postgresql":
        return []
    rows = input_file(plan.machine.folder, plan.rows)
    ratios, speeds, arrow_speeds = [], [], []
    with plan.machine.running(2) as stack:
        batch = run_batch(stack, plan, rows, latency_s=0.0)["batch"]
        stack.producer("plain-submit", rows)
        for _ in range(plan.runs):
            plain = stack.producer("plain-results", plan.machine.folder / "plain.txt")["seconds"]
            ours = stack.producer("results", batch, plan.machine.folder / "results.jsonl")["seconds"]
            ratios.append(plain / ours)
            speeds.append(plan.rows / ours)
            arrow_speeds.append(plan.rows / stack.producer("arrow", batch)["seconds"])
    name = f"results of {plan.rows:,} rows to JSONL"
    return [
        Figure(f"{name}, over COPY of the join", ratios, 0.5),
        Figure(f"{name}, rows/s", speeds, unit="rows/s"),
        Figure(f"results of {plan.rows:,} rows as Arrow, rows/s", arrow_speeds, unit="rows/s"),
    ]


def fairness(plan: Plan) -> list[Figure]:
    """A batch of 1,000 rows behind a large one, over alone; 50 requests/s, two worker processes."""
    large = input_file(plan.machine.folder, plan.rows)
    alone, behind = [], []
    with plan.machine.running(2, {"LABELMILL_REQUESTS_PER_SECOND": 50}) as stack:
        for run in range(plan.runs):
            small = input_file(plan.machine.folder, 1_000, first=800_000_000 + 1_000 * run)
            alone.append(run_batch(stack, plan, small, latency_s=0.2, rate=50)["total"])
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
            plain = run_batch(stack, plan, rows, latency_s=0.05)["total"]
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
                totals = [run_batch(stack, plan, rows, latency_s=0.05)["total"] for _ in range(runs)]
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
