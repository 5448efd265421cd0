"""Vectors of texts: an answer of `/v1/embeddings` checked before it is believed, and how vectors are kept. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from labelmill.contracts.chats import transcript
from labelmill.contracts.errors import MalformedAnswer
from labelmill_worker.inference.planning import Request, plan_by_tokens
from labelmill_worker.ports.inference import Call, Endpoint

#: Of one request to `mistral-embed`: 16,384 tokens and 512 texts at Mistral; one text at most 8,192 tokens. A text that
#: Mistral refuses for its length fails as a row of its own.
MAX_REQUEST_TOKENS = 16_000
MAX_REQUEST_TEXTS = 512
DIMENSIONS = {"mistral-embed": 1024}  #: By model; others show theirs in their answers.

_Vectors = NDArray[np.float32]


def embedding_input(texts: Sequence[str]) -> list[str]:
    """What is embedded for texts: themselves, chats as transcripts."""
    return [transcript(text) for text in texts]


def embedding_call(model: str, texts: Sequence[str]) -> Call:
    """The call that embeds texts."""
    return Call(Endpoint.EMBEDDINGS, {"model": model, "input": embedding_input(texts)})


def plan_embedding(rows: Sequence[int], texts: Sequence[str], texts_per_request: int) -> Iterator[Request]:
    """Cut rows into requests within Mistral's limits."""
    return plan_by_tokens(rows, texts, min(texts_per_request, MAX_REQUEST_TEXTS), MAX_REQUEST_TOKENS)


def check_vectors(data: object, count: int, dimensions: int | None) -> _Vectors:
    """Turn `data` of an answer to `count` texts into float32 (count, dimensions), in the order of the texts.

    Entries may come in any order; their `index` counts. Raises MalformedAnswer unless there is one vector for each
    text, all of one length (`dimensions` if that is given), of finite numbers.
    """
    if not isinstance(data, list) or len(data) != count:
        found = len(data) if isinstance(data, list) else "no list of"
        raise MalformedAnswer(f"{found} vectors for {count} texts")
    try:
        places = [entry["index"] for entry in data]
        vectors = np.array([entry["embedding"] for entry in data])
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedAnswer(f"an answer holds no vectors: {type(error).__name__}") from error
    if sorted(places) != list(range(count)) if all(type(place) is int for place in places) else True:
        raise MalformedAnswer("the vectors of an answer do not say which text is whose")
    if vectors.ndim != 2 or vectors.dtype.kind not in "fi" or vectors.shape[1] == 0:
        raise MalformedAnswer("an answer holds vectors of several lengths, or of other things than numbers")
    if dimensions is not None and vectors.shape[1] != dimensions:
        raise MalformedAnswer(f"an answer holds vectors of {vectors.shape[1]} numbers, not {dimensions}")
    with np.errstate(over="ignore"):
        narrow = vectors.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise MalformedAnswer("an answer holds a number that is not finite")
    if places == list(range(count)):
        return narrow
    ordered = np.empty_like(narrow)
    ordered[places] = narrow
    return ordered


def pack_vectors(vectors: _Vectors) -> list[bytes]:
    """As they are stored: float16, whose error of a thousandth of a component no linear head notices."""
    half = np.clip(vectors, -65504, 65504).astype("<f2")
    return [row.tobytes() for row in half]
