"""Vectors in SQL: what was embedded for training, by the text's digest, so that no text is paid for twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.engine import Connection, Engine

from labelmill.contracts.text_digests import digest_of
from labelmill.core.chunks.codec import ChunkInput
from labelmill.core.database import reading
from labelmill.core.database.dialects import dialect_of
from labelmill.core.database.tables import VectorRow

_AT_ONCE = 1_000  # parameters of one statement


def known_digests(connection: Connection, model_no: int, digests: Iterable[bytes]) -> set[bytes]:
    """Those of `digests` that have a vector."""
    wanted = list(dict.fromkeys(digests))
    found: set[bytes] = set()
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        found.update(
            connection.scalars(
                select(VectorRow.digest).where(VectorRow.model_no == model_no, VectorRow.digest.in_(part))
            )
        )
    return found


def read_vectors(engine: Engine, model_no: int, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    """The vectors there are, as they are stored."""
    wanted = list(dict.fromkeys(digests))
    found: dict[bytes, bytes] = {}
    with reading(engine) as connection:
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            rows = connection.execute(
                select(VectorRow.digest, VectorRow.data).where(
                    VectorRow.model_no == model_no, VectorRow.digest.in_(part)
                )
            )
            found.update((digest, data) for digest, data in rows)
    return found


def rows_with_vectors(connection: Connection, model_no: int, held: ChunkInput, first_row: int) -> set[int]:
    """Rows of a chunk whose texts have a vector."""
    digests = {index: digest_of(text) for index, text in enumerate(held.texts) if index not in held.repeats}
    known = known_digests(connection, model_no, digests.values())
    return {first_row + index for index, digest in digests.items() if digest in known}


def keep_vectors(connection: Connection, vectors: Iterable[tuple[int, bytes, bytes]]) -> None:
    """Keep `(model_no, digest, data)` within the connection's transaction; what another one kept meanwhile stays.

    Call it once a transaction, with everything that the transaction keeps: the rows are written in the order of their
    keys, so that two transactions that keep the same texts never wait for each other crosswise.
    """
    rows = [{"model_no": model_no, "digest": digest, "data": data} for model_no, digest, data in sorted(vectors)]
    if rows:
        connection.execute(dialect_of(connection).insert_or_ignore(VectorRow), rows)
