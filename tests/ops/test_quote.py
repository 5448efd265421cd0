"""Quotes: the requests that would be sent, their tokens by Mistral's tokenizers, and nothing written or asked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asked import submit_batch, submit_training
from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral
from workshop import SCHEMA, PollingWorkshop, Workshop, intent_rows

from labelmill.contracts.documents.money import QuoteDocument
from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import BatchRow, EventRow, ModelRow
from labelmill.core.model_limits import ModelLimit
from labelmill.core.money.tokenizers import EstimatedTokens, MistralTokens, TokenCounter
from labelmill.core.remote_models import Listed, keep_list
from labelmill.core.reported_limits import KnownLimits, keep_limits
from labelmill.services.batches import ClassifyRequest
from labelmill.services.context import ServiceContext
from labelmill.services.trainings import TrainRequest
from labelmill_ops.quote import command
from labelmill_ops.quote.quoting import QuoteContext, quote_batch
from labelmill_ops.quote.tally import AccountLimits
from labelmill_ops.quote.trainings import quote_training


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return MistralTokens()


@pytest.fixture
def workshop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    made = PollingWorkshop(engine, mistral, redis_url, tmp_path)
    made.dataset("small", SCHEMA, **{name: intent_rows(name, 30) for name in ("train", "validation", "test")})
    yield made
    made.close()


@pytest.fixture
def mistral() -> Iterator[StrictMistral]:
    with StrictMistral() as server:
        yield server


def context_of(workshop: Workshop, counter: TokenCounter, limits: AccountLimits | None = None) -> QuoteContext:
    services = ServiceContext(workshop.engine, workshop.sender, workshop.resources.storage)
    return QuoteContext(services, counter, limits or AccountLimits(), texts_per_request=10)


def source_of(workshop: Workshop, texts: list[str]) -> str:
    path = workshop.folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def classify(source: str, model: str, **options: Any) -> ClassifyRequest:
    return ClassifyRequest.of(source, model, **options)


def rows_in(engine: Engine) -> list[int]:
    with reading(engine) as connection:
        return [
            int(connection.scalar(select(func.count()).select_from(t)) or 0) for t in (ModelRow, BatchRow, EventRow)
        ]


def test_a_quote_counts_the_requests_and_tokens_that_are_sent_then(workshop: Workshop, counter: TokenCounter) -> None:
    workshop.run(submit_training(workshop.engine, workshop.sender, name="p", dataset="small", method="prompt", shots=1))
    texts = [*(f"réveille-moi à {hour} h, s'il te plaît" for hour in range(12)), "", "a text", "a text"]
    source, before = source_of(workshop, texts), rows_in(workshop.engine)
    workshop.mistral.bodies.clear()
    quote = quote_batch(context_of(workshop, counter), classify(source, "p"))
    TypeAdapter(QuoteDocument).validate_python(quote)
    assert (rows_in(workshop.engine), list(workshop.mistral.bodies)) == (before, []), (
        "it writes nothing and asks nobody"
    )
    assert (quote["kind"], quote["model"], quote["rows"], quote["texts"]) == ("batch", "p@1", 15, 13)
    realtime, batch = quote["options"]
    assert (realtime["mode"], batch["mode"]) == ("realtime", "batch")
    workshop.run(submit_batch(workshop.engine, workshop.sender, source=source, model="p"))
    sent = list(workshop.mistral.bodies)
    assert realtime["requests"] == len(sent) == 13
    assert realtime["input_tokens"] == sum(counter.of_chat(body["messages"]) for body in sent)
    assert realtime["tokens_by"] == "tokenizer"
    least, most = realtime["output_tokens"]
    assert 0 < least < most == sum(body["max_tokens"] for body in sent)
    assert realtime["example"] is not None
    assert realtime["example"]["body"] in sent
    assert realtime["cost"] is not None
    assert batch["cost"] is not None
    price = 0.15 / 1e6
    assert realtime["cost"]["min"] == pytest.approx((realtime["input_tokens"] + least) * price, abs=1e-8)
    assert realtime["cost"]["max"] == pytest.approx((realtime["input_tokens"] + most) * price, abs=1e-8)
    assert batch["cost"]["max"] == pytest.approx(realtime["cost"]["max"] / 2, abs=1e-8)


def test_classifications_and_counts_without_the_tokenizers_are_marked_as_estimated(workshop: Workshop) -> None:
    source = source_of(workshop, [f"text {number}" for number in range(25)])
    before = rows_in(workshop.engine)
    quote = quote_batch(
        context_of(workshop, EstimatedTokens()), classify(source, "ft:classifier:ministral-3b-latest:x")
    )
    assert rows_in(workshop.engine) == before, "a model id that is new here is not noted"
    realtime = quote["options"][0]
    assert (realtime["requests"], realtime["tokens_by"], realtime["output_tokens"]) == (3, "estimate", [0, 0])
    unknown = quote_batch(context_of(workshop, EstimatedTokens()), classify(source, "ft:classifier:unknown"))
    assert unknown["options"][0]["cost"] is None


def test_seconds_are_those_of_the_tightest_limit_that_is_set(workshop: Workshop) -> None:
    source = source_of(workshop, [f"text {number}" for number in range(100)])
    model = "ft:classifier:ministral-3b-latest:x"

    def seconds(limits: AccountLimits | None) -> float | None:
        return quote_batch(context_of(workshop, EstimatedTokens(), limits), classify(source, model))["options"][0][
            "seconds"
        ]

    assert seconds(None) is None
    assert seconds(AccountLimits(requests_per_second=2)) == 5.0
    limits = {model: ModelLimit(requests_per_minute=30), "another": ModelLimit(requests_per_minute=1)}
    assert seconds(AccountLimits(requests_per_second=2, of_models=limits)) == 20.0
    with writing(workshop.engine) as connection:
        keep_list(connection, [Listed(model, ("newest",))])
    assert seconds(AccountLimits(of_models={"newest": ModelLimit(requests_per_minute=15)})) == 40.0


def test_texts_that_are_longer_than_the_model_takes_are_not_counted(workshop: Workshop, counter: TokenCounter) -> None:
    long = "word " * 9_000
    rows = intent_rows("train", 30)
    for number, row in enumerate(rows[:2]):
        row["text"] = f"{long}{number}"
    workshop.dataset("long", SCHEMA, train=rows, validation=[], test=[])
    asked = TrainRequest.of("m", "long")
    quote = quote_training(context_of(workshop, counter), asked)
    assert (quote["rows"], quote["texts"], quote["too_long"]) == (30, 28, 2)
    assert quote["options"][0]["input_tokens"] < 9_000
    estimated = quote_training(context_of(workshop, EstimatedTokens()), asked)
    assert (estimated["texts"], estimated["too_long"]) == (30, 0), "an estimate refuses nothing"


def test_a_terminal_gets_the_figures_and_the_beginning_of_a_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "wants_json", lambda _: False)
    monkeypatch.setenv("COLUMNS", "120")
    example = {"path": "/v1/embeddings", "body": {"input": ["a text"] * 1_000}}
    counted: dict[str, Any] = {"requests": 1, "input_tokens": 5, "output_tokens": [0, 0], "tokens_by": "tokenizer"}
    unknown: dict[str, Any] = {"cost": None, "seconds": None, "example": None}
    options: list[Any] = [
        {"method": "embedding", **counted, **unknown, "example": example},
        {"method": "factory", **counted, **unknown, "requests": 0, "tokens_by": "estimate"},
    ]
    document: QuoteDocument = {
        "kind": "training",
        "model": "m",
        "rows": 1,
        "texts": 1,
        "too_long": 1,
        "refused": 2,
        "options": options,
    }
    command._show(document, SimpleNamespace(counter=SimpleNamespace(tokens_by="tokenizer")), as_json=False)
    out = capsys.readouterr().out
    assert out.startswith("m: 1 row, 1 text to send\n1 text is longer than the model takes, and not counted\n")
    assert "\n2 texts were refused by Mistral before, and left out\n" in out
    assert "time at least" in out
    assert "estimated" not in out
    assert len(out) < 1_200
    assert "all of it: --json" in out


def test_limits_that_mistral_told_workers_count_like_those_that_are_set(workshop: Workshop) -> None:
    source = source_of(workshop, [f"text {number}" for number in range(100)])
    model = "ft:classifier:ministral-3b-latest:x"
    told = {model: KnownLimits(time.time(), 30, None), "another": KnownLimits(time.time(), 1, 1)}
    with writing(workshop.engine) as connection:
        keep_limits(connection, told)
    for limits, seconds in (
        (AccountLimits(), 20.0),
        (AccountLimits(of_models={model: ModelLimit(requests_per_minute=15)}), 40.0),
        (AccountLimits(of_models={model: ModelLimit(requests_per_minute=60)}), 20.0),
    ):
        quote = quote_batch(context_of(workshop, EstimatedTokens(), limits), classify(source, model))
        assert quote["options"][0]["seconds"] == seconds


def test_a_training_is_quoted_for_each_method_and_for_texts_without_a_vector_alone(
    workshop: Workshop, counter: TokenCounter
) -> None:
    context, request = context_of(workshop, counter), TrainRequest.of("m", "small")
    quote = quote_training(context, request)
    TypeAdapter(QuoteDocument).validate_python(quote)
    assert (quote["kind"], quote["model"], quote["texts"]) == ("training", "mistral-embed", 60)
    by_method = {option["method"]: option for option in quote["options"]}
    assert list(by_method) == ["embedding", "factory", "prompt"]
    texts = [row["text"] for name in ("train", "validation") for row in intent_rows(name, 30)]
    assert by_method["embedding"]["input_tokens"] == sum(map(counter.of_text, texts))
    assert by_method["embedding"]["requests"] == 6
    assert by_method["embedding"]["cost"] is not None
    assert (by_method["factory"]["cost"], by_method["prompt"]["requests"]) == (None, 1), "it asks for log-probabilities"
    workshop.run(submit_training(workshop.engine, workshop.sender, name="m", dataset="small", yes=True))
    assert quote_training(context, request)["options"][0]["requests"] == 0


@pytest.mark.parametrize("options", [{"candidates": 2}, {"shots": 1, "shot_selection": "nearest"}], ids=str)
def test_a_training_by_prompt_is_quoted_with_what_it_embeds(
    workshop: Workshop, counter: TokenCounter, options: dict[str, Any]
) -> None:
    asked = quote_by_prompt(workshop, counter, **options)
    training = submit_training(
        workshop.engine, workshop.sender, name="p", dataset="small", method="prompt", yes=True, **options
    )
    assert workshop.run(training)["state"] == "succeeded"
    sent = list(workshop.mistral.bodies)
    chats = [body["messages"] for body in sent if "messages" in body]
    texts = [text for body in sent if "input" in body for text in body["input"]]
    assert len(chats) == 1, "the question about log-probabilities"
    assert asked["input_tokens"] == sum(map(counter.of_chat, chats)) + sum(map(counter.of_text, texts))


@pytest.mark.parametrize(
    ("options", "requests"),
    [
        ({}, 0),
        ({"target_precision": {"*": 0.8}}, 30),
        ({"target_precision": {"*": 0.8}, "texts_per_prompt": 4}, 8),
        ({"target_precision": {"*": 0.8}, "texts_per_prompt": "auto"}, 30),
    ],
    ids=str,
)
def test_a_training_by_prompt_is_quoted_with_its_trials(
    workshop: Workshop, counter: TokenCounter, options: dict[str, Any], requests: int
) -> None:
    asked = quote_by_prompt(workshop, counter, **options)
    batch = quote_by_prompt(workshop, counter, mode="batch", **options)
    assert asked["requests"] == batch["requests"] == 1 + requests
    assert asked["output_tokens"][0] > 4 * requests
    assert asked["cost"]["max"] > asked["cost"]["min"] > 0
    assert batch["cost"]["max"] == pytest.approx(asked["cost"]["max"] / 2, abs=1e-8)


def test_trials_whose_examples_are_chosen_by_vectors_are_quoted_with_these(
    workshop: Workshop, counter: TokenCounter
) -> None:
    precise: dict[str, Any] = {"target_precision": {"*": 0.8}, "candidates": 2}
    without, asked = quote_by_prompt(workshop, counter, candidates=2), quote_by_prompt(workshop, counter, **precise)
    assert asked["requests"] == without["requests"] + 2 * 30, "each text is embedded, and asked about"
    by_batch_jobs = quote_by_prompt(workshop, counter, mode="batch", **precise)
    assert by_batch_jobs["requests"] == without["requests"] + 30, "validation has its vectors already"
    assert (without["tokens_by"], asked["tokens_by"]) == ("tokenizer", "estimate")


def test_trials_of_several_numbers_of_texts_are_quoted(workshop: Workshop) -> None:
    rows = {"train": intent_rows("train", 30), "validation": intent_rows("validation", 1_000)}
    workshop.dataset("large", SCHEMA, **rows)
    asked = quote_by_prompt(workshop, EstimatedTokens(), dataset="large", texts_per_prompt="auto")
    assert asked["requests"] >= 1 + 1_000 + 500 + 250, "one text a prompt, two, four, and more"
    assert asked["cost"]["min"] > 0


def quote_by_prompt(workshop: Workshop, counter: TokenCounter, *, dataset: str = "small", **options: Any) -> Any:
    request = TrainRequest.of("p", dataset, method="prompt", **options)
    return quote_training(context_of(workshop, counter), request)["options"][0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shots": 3, "method": "embedding"}, "goes with"),
        ({"max_cost": -1.0}, "0 or more"),
        ({"method": "prompt", "descriptions": {"no such": "label"}}, "no such label"),
        ({"method": "factory", "target_weights": {"other": 2.0}}, "names"),
        ({"target_precision": {"other": 0.9}}, "not a target"),
    ],
)
def test_a_quote_refuses_the_training_that_train_refuses(
    workshop: Workshop, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        quote_training(context_of(workshop, EstimatedTokens()), TrainRequest.of("m", "small", **options))


def test_what_a_submission_refuses_a_quote_refuses_too(workshop: Workshop) -> None:
    context, source = context_of(workshop, EstimatedTokens()), source_of(workshop, ["one"])
    with pytest.raises(NotFound, match="no model"):
        quote_batch(context, classify(source, "missing@1"))
    with pytest.raises(InvalidInput):
        quote_batch(context, classify(source, "ft:classifier:x", text="no-such-column"))
    for options in ({"max_cost": -1.0}, {"mode": "auto"}, {"priority": "now"}, {"max_cost": 1.0}):
        with pytest.raises(InvalidInput):
            quote_batch(context, classify(source, "ft:classifier:x", **options))
    with pytest.raises(NotFound, match="no dataset"):
        quote_training(context, TrainRequest.of("m", "missing"))


@pytest.mark.parametrize(
    ("system", "turns"),
    [
        ("", ["wake me up at six"]),
        ("You classify texts. Answer with JSON alone.\n\n- a\n- b", ["wake me up at six"]),
        (
            "You classify texts:",
            ["one", '{"intent":"a"}', "two\n", '{"intent":["b"]}', "\n  réveille-moi à six heures 🕕"],
        ),
        ("Labels: 12,345", ["0123456789 " * 20, "{}", "日本語のテキスト"]),
    ],
)
def test_chat_tokens_are_those_of_the_template(counter: TokenCounter, system: str, turns: list[str]) -> None:
    from mistral_common.protocol.instruct.messages import (  # noqa: PLC0415 - an extra, and slow
        AssistantMessage,
        SystemMessage,
        UserMessage,
    )
    from mistral_common.protocol.instruct.request import ChatCompletionRequest  # noqa: PLC0415 - as above
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer  # noqa: PLC0415 - as above

    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
    typed: list[Any] = [
        (UserMessage if message["role"] == "user" else AssistantMessage)(content=message["content"])
        for message in messages
    ]
    if system:
        messages.insert(0, {"role": "system", "content": system})
        typed.insert(0, SystemMessage(content=system))
    template = MistralTokenizer.v3(is_tekken=True)
    exact = len(template.encode_chat_completion(ChatCompletionRequest(messages=typed)).tokens)
    assert abs(counter.of_chat(messages) - exact) <= 2


def test_embedding_tokens_have_one_mark_before_and_one_behind_each_text(counter: TokenCounter) -> None:
    assert counter.of_text("wake me up at six") == 7  # five words and two marks
