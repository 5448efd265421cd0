"""Measures of throughput: rows and requests a second, over what one would write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from canned_server import LABELS
from plan import Plan, run_batch
from report import Figure
from stack import Stack, environment, input_file, labelled_file

from labelmill.core.settings import Settings

REFERENCE = Path(__file__).parent / "reference.py"
CLIENTS = Path(__file__).parent / "public_clients.py"
PUBLIC_CLIENTS = {"flexllm": "flexllm==0.17.10", "curator": "bespokelabs-curator==0.1.31"}
NAIVE = Path(__file__).parent / "celery_per_text.py"


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


def rate_limit(plan: Plan) -> list[Figure]:
    """Requests a second between the first and the last request, over the limit of 50."""
    rows = input_file(plan.machine.folder, min(plan.rows, 100_000))
    figures = []
    for workers in (1, 2, 4):
        shares, rejected = [], 0
        with plan.machine.running(workers, {"LABELMILL_REQUESTS_PER_SECOND": 50}) as stack:
            for _ in range(min(plan.runs, 3)):
                found = run_batch(stack, plan, rows, latency_s=0.2, rate=50)
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
            found = run_batch(stack, plan, rows, latency_s=0.05)
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
        Figure(f"{name}, over the reference", works, 1.3, note="from the first request to the last row, like the next"),
        Figure(f"{name}, Labelmill, rows/s", ours, unit="rows/s"),
        Figure(f"{name}, reference, rows/s", theirs, unit="rows/s"),
        Figure(f"{name}, submission included, over the reference", totals),
        Figure(f"{name}, CPU of both workers a row", cpu, unit="µs"),
        Figure(f"{name}, CPU of the database a row", database_cpu, unit="µs"),
        Figure(f"{name}, CPU of the reference a row", reference_cpu, unit="µs"),
        Figure(f"{name}, requests sent over needed", sent, 1.0, at_most=True),
    ]


def two_references(plan: Plan) -> list[Figure]:
    """As `bulk`, over two processes of the reference with half of the rows and 50 requests in flight each: with as many
    in flight, and with as many as by default. Ours are in flight until their rows are committed, the reference's until
    they are answered."""
    rows = input_file(plan.machine.folder, plan.rows)
    half = plan.rows // 2
    halves = [
        input_file(plan.machine.folder, half),
        input_file(plan.machine.folder, plan.rows - half, first=half),
    ]
    in_flight = {"50": {"LABELMILL_MAX_IN_FLIGHT": 50}, f"by default {Settings().max_in_flight}": {}}
    seconds: dict[str, list[float]] = {each: [] for each in in_flight}
    theirs = []
    for _ in range(plan.runs):
        with plan.machine.database_only() as stack:
            plan.machine.server.reset(0.05)
            reference = _two_references(stack, plan, halves, 100)
        if reference["rows"] != plan.rows:
            raise RuntimeError(f"the references wrote {reference['rows']} of {plan.rows} rows")
        theirs.append(reference["seconds"])
        for each, settings in in_flight.items():
            with plan.machine.running(2, settings) as stack:
                seconds[each].append(run_batch(stack, plan, rows, latency_s=0.05)["work"])
    name = f"100 texts a request, {plan.rows:,} rows, {plan.machine.database}"
    figures = [Figure(f"{name}, two processes of the reference", [plan.rows / took for took in theirs], unit="rows/s")]
    for each, took in seconds.items():
        ratios = [other / ours for other, ours in zip(theirs, took, strict=True)]
        figures += [
            Figure(f"{name}, {each} in flight a process", [plan.rows / ours for ours in took], unit="rows/s"),
            Figure(f"{name}, {each} in flight a process, over two of the reference", ratios, 0.9),
        ]
    return figures


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
            found = run_batch(stack, plan, rows, latency_s=0.05)
        ratios.append(reference["seconds"] / found["work"])
        ours.append(count / found["work"])
        theirs.append(count / reference["seconds"])
        sent.append(found["requests"] / count)
    name = f"one text a request, {count:,} rows, {plan.machine.database}"
    return [
        Figure(f"{name}, over the reference", ratios, 0.9, note="one worker process"),
        Figure(f"{name}, Labelmill, rows/s", ours, unit="rows/s"),
        Figure(f"{name}, reference, rows/s", theirs, unit="rows/s"),
        Figure(f"{name}, requests sent over needed", sent, 1.0, at_most=True),
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
            single.append(count / run_batch(stack, plan, few, latency_s=0.05)["work"])
        with plan.machine.running(1) as stack:
            listed.append(min(plan.rows, 100_000) / run_batch(stack, plan, many, latency_s=0.05)["work"])
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
            found = run_batch(stack, plan, rows, latency_s=0.05, model="bench")
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
