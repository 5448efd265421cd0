"""`labelmill quote classify` and `labelmill quote train`: with the arguments of `classify` and `train`."""

from __future__ import annotations

from functools import wraps
from typing import Any

import orjson
import typer

from labelmill.cli import classify as classify_command
from labelmill.cli import train as train_command
from labelmill.cli.context import connected, print_json, settings, tables, wants_json
from labelmill.cli.figures import count, duration, money
from labelmill.cli.options import MAIN
from labelmill.cli.tables import print_rows
from labelmill.contracts.control_characters import visible
from labelmill.contracts.documents.money import CostRange, QuoteDocument

_EXAMPLE_CHARS = 400  #: Of a request that is shown on a terminal.


def register(app: typer.Typer) -> None:
    """Add the commands."""
    quote = typer.Typer(no_args_is_help=True, help="What a job would cost: calls nobody and writes nothing.")
    same = "with the same arguments, before anything is sent."
    quote.command("classify", help=f"What `classify` would cost and how long it would take, {same}")(_quote_classify)
    quote.command("train", help=f"What `train` would cost by each method, {same}")(_quote_train)
    app.add_typer(quote, name="quote", rich_help_panel=MAIN)


@wraps(classify_command.classify)
def _quote_classify(**given: Any) -> None:
    request = classify_command.request_of(given)
    from labelmill_ops.quote.quoting import quote_batch  # noqa: PLC0415 - the worker's code, which the help spares

    context = _context()
    _show(quote_batch(context, request), context, as_json=given["as_json"])


@wraps(train_command.train)
def _quote_train(**given: Any) -> None:
    request = train_command.request_of(given)
    from labelmill_ops.quote.trainings import quote_training  # noqa: PLC0415 - as above

    context = _context()
    _show(quote_training(context, request), context, as_json=given["as_json"])


def _context() -> Any:
    from labelmill.core.money.tokenizers import token_counter  # noqa: PLC0415 - as above
    from labelmill_ops.quote.quoting import QuoteContext  # noqa: PLC0415 - as above
    from labelmill_ops.quote.tally import AccountLimits  # noqa: PLC0415 - as above

    used = settings()
    limits = AccountLimits(used.requests_per_second, used.tokens_per_minute, used.model_limits)
    return QuoteContext(connected(), token_counter(), limits, used.texts_per_request)


def _show(document: QuoteDocument, context: Any, *, as_json: bool) -> None:
    if wants_json(as_json):
        print_json(document)
        return
    console = tables()
    console.print(
        f"{document['model']}: {count(document['rows'], 'rows')}, {count(document['texts'], 'texts')} to send"
    )
    if too_long := document["too_long"]:
        are = "is" if too_long == 1 else "are"
        console.print(f"{count(too_long, 'texts')} {are} longer than the model takes, and not counted")
    if refused := document["refused"]:
        are = "was" if refused == 1 else "were"
        console.print(f"{count(refused, 'texts')} {are} refused by Mistral before, and left out")
    rows = [
        [
            option.get("mode") or option.get("method") or "",
            f"{option['requests']:,}",
            f"{option['input_tokens']:,}",
            " to ".join(f"{number:,}" for number in sorted(set(option["output_tokens"]))),
            _cost(option["cost"]),
            duration(option["seconds"]) if option["seconds"] is not None else "no limit is known",
        ]
        for option in document["options"]
    ]
    print_rows(console, ["by", "requests", "input tokens", "output tokens", "cost", "time at least"], rows)
    if any(option["tokens_by"] == "estimate" and option["requests"] for option in document["options"]):
        remedy = ": labelmill[tokens] counts embeddings and prompts as Mistral does"
        console.print(f"some tokens are estimated{remedy if context.counter.tokens_by == 'estimate' else ''}")
    example = next((option["example"] for option in document["options"] if option["example"]), None)
    if example is not None:
        shown = orjson.dumps(example["body"]).decode()
        more = f"… ({len(shown):,} characters; all of it: --json)" if len(shown) > _EXAMPLE_CHARS else ""
        console.print(f"one of the requests, to {example['path']}:")
        console.print(visible(shown[:_EXAMPLE_CHARS]) + more, markup=False, highlight=False, soft_wrap=True)


def _cost(cost: CostRange | None) -> str:
    if cost is None:
        return "not known"
    least = money({"amount": cost["min"], "currency": cost["currency"]})
    most = money({"amount": cost["max"], "currency": cost["currency"]})
    return least if least == most else f"{least} to {most}"
