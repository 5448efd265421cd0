"""The steps of the demo: prepare → train → evaluate → classify."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from labelmill.cli.terminal import PlainConsole
from labelmill_ops.demo.stack import DemoFailed, TemporaryStack
from labelmill_ops.sample import SAMPLE_PATH

_NOT_MISTRAL = (
    "Mistral was played by the emulator, a small classifier on this machine. It is not Mistral, and its accuracy says "
    "nothing about Mistral's models."
)


def run_demo(folder: Path, *, keep: bool, as_json: bool) -> None:
    """Run everything in `folder` and print where things are. Raises DemoFailed, InvalidInput."""
    started_at = time.monotonic()
    console = PlainConsole(stderr=True, markup=True)
    stack = TemporaryStack(folder)
    stack.clear()
    signal.signal(signal.SIGTERM, _as_interrupt)
    with stack.running():
        console.print(f"The stack is up. Watch the queue in Flower: {stack.flower_url}", soft_wrap=True)
        summary = _run_steps(stack, console)
        summary["seconds"] = round(time.monotonic() - started_at, 1)
        _print_summary(summary, as_json=as_json)
        if keep:
            _wait_for_interrupt(console, stack)
    console.print("The stack is stopped; the database and all files are kept.", soft_wrap=True)


def _run_steps(stack: TemporaryStack, console: Console) -> dict[str, Any]:
    def say(number: int, what: str) -> None:
        console.print(f"[bold]{number}/4[/] {what}", highlight=False, soft_wrap=True)

    say(1, "prepare: split the bundled sample, made-up requests to a voice assistant")
    dataset = stack.run(
        "prepare", "prepare", "sample", str(SAMPLE_PATH), "--text", "text", "--target", "intent=intent", "--wait"
    )
    say(2, "train: a classifier by the factory method")
    training = stack.run("train", "train", "intents", "--dataset", "sample", "--method", "factory", "--yes", "--wait")
    say(3, "evaluate: on the test split, through the queue")
    evaluation = stack.run("evaluate", "evaluate", "intents", "--dataset", "sample", "--split", "test", "--wait")
    report = stack.folder / "report.html"
    stack.run("report", "report", evaluation["id"], "-o", str(report))
    say(4, "classify: the texts of the test split")
    results = stack.folder / "results.jsonl"
    batch = stack.run(
        "classify",
        "classify",
        str(_test_file(dataset)),
        "--model",
        "intents",
        "--text",
        "text",
        "--wait",
        "-o",
        str(results),
    )
    rows = batch["rows"]
    with results.open() as lines:
        written = sum(1 for _ in lines)
    if written != rows["submitted"]:
        raise DemoFailed(f"classify: {rows['submitted']} rows went in, {written} came out")
    return {
        "accuracy": evaluation["metrics"]["intent"]["accuracy"],
        "macro_f1": evaluation["metrics"]["intent"]["macro_f1"],
        "splits": dataset["splits"],
        "model": training["model"],
        "rows": rows,
        "results": str(results),
        "report": str(report),
        "data_dir": str(stack.data_dir),
        "flower_url": stack.flower_url,
        "note": _NOT_MISTRAL,
    }


def _test_file(dataset: dict[str, Any]) -> Path:
    return Path(dataset["files"]["test"])


def _print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))  # noqa: T201 - the command's output
        return
    rows = summary["rows"]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("model", summary["model"])
    table.add_row("accuracy", f"{summary['accuracy']:.3f} on the test split (macro F1 {summary['macro_f1']:.3f})")
    table.add_row("rows", f"{rows['submitted']} submitted, {rows['labelled']} labelled, {rows['failed']} failed")
    table.add_row("results", summary["results"])
    table.add_row("report", summary["report"])
    table.add_row("Flower", summary["flower_url"])
    table.add_row("took", f"{summary['seconds']:.0f} s")
    console = PlainConsole(soft_wrap=True)
    console.print(table)
    console.print(_NOT_MISTRAL)
    console.print(f"Look around: {_labelmill()} --data-dir {summary['data_dir']} status")


def _labelmill() -> str:
    """How a person calls the command here: `make demo` needs no activated environment."""
    return "labelmill" if shutil.which("labelmill") else str(Path(sys.executable).with_name("labelmill"))


def _wait_for_interrupt(console: Console, stack: TemporaryStack) -> None:
    console.print(f"The stack stays up until Ctrl-C. Flower: {stack.flower_url}", soft_wrap=True)
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        console.print("stopping")


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
