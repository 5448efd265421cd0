"""Classifiers' answers, from their bytes into arrays without a dictionary for each text: a third of the work.

What has not exactly the expected form is decoded as any JSON, so that the checks in `answers.py` say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from struct import Struct
from typing import Any, cast

import msgspec
import numpy as np
import orjson
from msgspec.structs import astuple
from numpy.typing import NDArray

from labelmill.contracts.errors import MalformedAnswer
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill_worker.inference.answers import Scores, check_scores
from labelmill_worker.ports.inference import Decode

#: Of a target: a field is looked for from the one that was found last. With so many labels, in another order than
#: expected, looking for them takes as long as the dictionaries.
_MAX_LABELS = 64
_MAX_ALL_LABELS = 1_000  #: Of all targets: making a decoder takes a millisecond for a hundred.
_MAX_SCHEMAS = 256  #: Whose decoder is kept.

_Order = tuple[tuple[str, ...], ...]
"""The labels of each target, in the order in which the server names them."""

_decoders: dict[LabelSchema, tuple[_Order, Decode]] = {}


@dataclass(frozen=True, slots=True)
class DecodedResults:
    """The `results` of an answer, with every target and label of the schema and finite numbers. Its arrays may be
    read-only."""

    count: int
    scores: Scores


def decoder_of(schema: LabelSchema) -> Decode | None:
    """What decodes the answers of a model with these labels. None: its first answer has yet to tell their order, or it
    has too many of them."""
    known = _decoders.get(schema)
    return known and known[1]


def read_scores(results: object, count: int, schema: LabelSchema) -> Scores:
    """As `check_scores`, also of results that are decoded already. Raises MalformedAnswer."""
    if isinstance(results, DecodedResults):
        if results.count != count:
            raise MalformedAnswer(f"{results.count} results for {count} texts")
        return results.scores
    scores = check_scores(results, count, schema)
    _note_order(schema, results)
    return scores


def _note_order(schema: LabelSchema, results: Any) -> None:
    if not results or not _is_decodable(schema):
        return
    order = tuple(tuple(results[0][target.name]["scores"]) for target in schema.targets)
    if (known := _decoders.get(schema)) is not None and known[0] == order:
        return
    if len(_decoders) >= _MAX_SCHEMAS:
        _decoders.clear()
    _decoders[schema] = order, _decoder(schema, order)


@lru_cache(maxsize=_MAX_SCHEMAS)
def _is_decodable(schema: LabelSchema) -> bool:
    counts = [len(target.labels) for target in schema.targets]
    if max(counts, default=0) > _MAX_LABELS or sum(counts) > _MAX_ALL_LABELS:
        return False
    try:
        _type_of(schema, tuple(target.labels for target in schema.targets))
    except ValueError:  # a name with a quote or a backslash
        return False
    return True


def _decoder(schema: LabelSchema, order: _Order) -> Decode:
    decoder = msgspec.json.Decoder(_type_of(schema, order))
    pickers = [_picker(number, target, order[number]) for number, target in enumerate(schema.targets)]

    def decode(payload: bytes | memoryview) -> Mapping[str, Any]:
        try:
            document: Any = decoder.decode(payload)
            results = document.results
            scores = [pick(results) for pick in pickers]
        except (ValueError, RecursionError, OverflowError):  # also what is no UTF-8, or too large for float32
            return cast("Mapping[str, Any]", orjson.loads(payload))
        return {"results": DecodedResults(len(results), scores), "usage": document.usage}

    return decode


def _type_of(schema: LabelSchema, order: _Order) -> Any:
    fields = []
    for target, labels in zip(schema.targets, order, strict=True):
        numbers = _struct(dict.fromkeys(labels, float), forbid_unknown_fields=True)
        fields.append((target.name, msgspec.defstruct("Target", [("scores", numbers)], gc=False)))
    result = _struct(dict(fields), forbid_unknown_fields=True)
    return msgspec.defstruct("Answer", [("results", list[result]), ("usage", Any, None)])  # type: ignore[valid-type]


def _struct(kinds: Mapping[str, Any], **options: Any) -> Any:
    """A struct whose fields have the names `f0`, `f1`, … here, and their own in JSON."""
    names = {f"f{number}": name for number, name in enumerate(kinds)}
    fields = [*zip(names, kinds.values(), strict=True)]
    return msgspec.defstruct("Struct", fields, rename=names, gc=False, **options)


def _picker(number: int, target: Target, labels: Sequence[str]) -> Callable[[Sequence[Any]], NDArray[np.float32]]:
    """What takes a target's scores out of results: float32 (rows, labels), in label order. Raises OverflowError."""
    size = len(labels)
    of_target = attrgetter(f"f{number}.scores")
    pack = Struct(f"<{size}f").pack  # a row at a time: a quarter of the time that NumPy takes for each number
    in_order = None if target.labels == tuple(labels) else [labels.index(label) for label in target.labels]

    def pick(results: Sequence[Any]) -> NDArray[np.float32]:
        packed = b"".join([pack(*astuple(scores)) for scores in map(of_target, results)])
        values = np.frombuffer(packed, "<f4").reshape(len(results), size)
        return values if in_order is None else values[:, in_order]

    return pick
