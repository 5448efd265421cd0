"""Choosing the rows of a remote batch: those of many chunks that no other one holds, within Mistral's limits.

Rows that need no call get their outcome here: blank ones their error, and with `--cache` those that an earlier batch
was answered its answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from sqlalchemy.engine import Connection

from labelmill.contracts.states import Mode
from labelmill.contracts.text_digests import digest_of
from labelmill.core.database import reading, writing
from labelmill.core.jobs import chunk_transitions
from labelmill.core.jobs.leases import LeaseLost
from labelmill.core.money.prices import PriceList
from labelmill_worker.inference.allowance import upper_bound
from labelmill_worker.inference.batch_mode.calls import CallMaker
from labelmill_worker.inference.batch_mode.verdicts import ChunkHistory
from labelmill_worker.inference.batch_mode.work import RemoteWork
from labelmill_worker.inference.outcomes import Answer
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.tally import tally
from labelmill_worker.inference.unanswered_rows import RowsToSend, unanswered_rows
from labelmill_worker.ports.batch_jobs import NumberedCall
from labelmill_worker.ports.inference import Endpoint
from labelmill_worker.store.answer_cache import earlier_answers, index_earlier_answers
from labelmill_worker.store.chunks import Claim
from labelmill_worker.store.progress import ChunkProgress, Entry, Standing, record_entries
from labelmill_worker.store.remote_batches import chunks_to_pack, encode_requests
from labelmill_worker.store.vectors import known_digests

MAX_REQUESTS = 100_000  #: The smaller of Mistral's two statements.
MAX_TRIAL_REQUESTS = 1_000  #: Of a batch whose first requests were all refused.
MAX_FILE_BYTES = 200_000_000  #: Mistral takes 512 MB.
#: Texts to embed: a gigabyte of results, which cannot be read on where a download broke off.
MAX_EMBEDDED_TEXTS = 50_000
MAX_INLINE_REQUESTS, MAX_INLINE_BYTES = 1_000, 1_000_000
_INDEX_PATIENCE_S = 3600.0


@dataclass
class Packed:
    """What a remote batch holds."""

    embeds: bool = False
    endpoint: Endpoint | None = None
    model: str = ""
    #: Chunk → the rows of its requests, compressed: there may be millions.
    requests: dict[int, bytes] = field(default_factory=dict)
    count: int = 0
    lists: int = 0  #: Requests with several texts.
    rows: int = 0
    size_bytes: int = 0
    left: int | None = None  #: That its requests may cost at most, in billionths; None: there is no cap.
    bound: int = 0  #: What they cost at most, where there is a cap.
    tokens_left: int | None = None  #: Of the month; None: it is not known.
    tokens: int = 0  #: Of its requests, by an upper estimate.
    exceeds_month: bool = False  #: The next request may need more than is left of the month.
    too_dear: int = 0  #: What the next request may cost, which is more than is left.
    tries: int | None = None  #: The fewest that any of its chunks had in vain.

    @property
    def is_inline(self) -> bool:
        """Whether its calls can go with the job itself."""
        return self.count <= MAX_INLINE_REQUESTS and self.size_bytes <= MAX_INLINE_BYTES


def pack(work: RemoteWork, *, on_trial: bool, left: int | None = None, tokens_left: int | None = None) -> Packed:
    """Choose rows, whose requests cost no more than what is `left` of a cap, and need no more than the tokens that are
    left of the month. Raises ChunkBusy, LeaseLost, ShuttingDown,
    and what strategies raise."""
    packed = Packed(left=left, tokens_left=tokens_left)
    maker = work.call_maker(embeds=False, one_text=on_trial)
    max_requests = MAX_TRIAL_REQUESTS if on_trial else MAX_REQUESTS
    for number, failures in chunks_to_pack(work.engine, work.claim.batch.no):
        work.check()
        history = ChunkHistory.from_json(failures)
        to_send = _rows_to_send(work, maker, number)
        if not to_send.rows:
            continue
        lacking = _without_vector(work, maker, to_send)
        if packed.count and packed.embeds is not bool(lacking.rows):
            continue  # a remote batch of its own: these are other calls
        packed.embeds = bool(lacking.rows)
        maker.embeds = packed.embeds
        if maker.asking.model != work.claim.batch.model.remote_model:
            packed.tokens_left = None  # it is of another model
        requests = _requests_of(maker, lacking if lacking.rows else to_send, history)
        has_room = _add(packed, number, requests, maker.calls_of(number, requests), max_requests, work.prices)
        if number in packed.requests:
            tries = max(history.tries.values(), default=0)
            packed.tries = tries if packed.tries is None else min(packed.tries, tries)
        if not has_room:
            break
    return packed


def _rows_to_send(work: RemoteWork, maker: CallMaker, number: int) -> RowsToSend:
    """The rows of a chunk that need a call, once the outcomes of the others are recorded."""
    claim = work.claim_chunk(number)
    if claim is None:
        return RowsToSend([], [])
    to_send, failed = unanswered_rows(claim)
    answers: list[Answer] = []
    if claim.options.get("cache") and maker.answering.schema is not None and to_send.rows:
        to_send, answers = _known_answers(work, maker, claim, to_send)
    record_held(work, claim, tally(claim, answers, failed), done=not to_send.rows)
    return to_send


def _known_answers(
    work: RemoteWork, maker: CallMaker, claim: Claim, to_send: RowsToSend
) -> tuple[RowsToSend, list[Answer]]:
    schema = maker.answering.schema
    assert schema is not None  # noqa: S101 - asked by the caller
    give_up_at = time.monotonic() + _INDEX_PATIENCE_S
    while not index_earlier_answers(work.engine, claim.model.no, exclude=claim.batch_no, until=time.monotonic() + 1):
        work.check()
        if time.monotonic() > give_up_at:
            return to_send, []
    earlier = earlier_answers(work.engine, claim.model.no, schema, to_send.texts, claim.options.get("temperatures"))
    known = earlier.indices.tolist()
    if not known:
        return to_send, []
    request = Request([to_send.rows[index] for index in known], [to_send.texts[index] for index in known])
    return to_send.without(set(known)), [Answer(request, schema, earlier.scores, 0, is_cached=True)]


def record_held(
    work: RemoteWork,
    claim: Claim,
    progress: ChunkProgress,
    *,
    done: bool,
    then: Callable[[Connection], None] = lambda _: None,
) -> None:
    """Write outcomes of a claimed chunk and close or release it, in one transaction; `then` writes what else belongs to
    it. Raises LeaseLost."""
    with writing(work.engine) as connection:
        (standing,) = record_entries(connection, [Entry(claim, progress, done)], work.lease_s, work.prices).standings
        if standing is Standing.LOST:
            raise LeaseLost("the lease on the chunk was lost")
        if not done:
            chunk_transitions.release(connection, claim.batch_no, claim.number, claim.token, wait_s=None, counts=False)
        then(connection)


def _without_vector(work: RemoteWork, maker: CallMaker, to_send: RowsToSend) -> RowsToSend:
    """The rows whose texts need a vector first and have none."""
    if maker.answering.vector_model is None:
        return RowsToSend([], [])
    digests = [digest_of(text) for text in to_send.texts]
    model_no = maker.vector_model_no
    with reading(work.engine) as connection:
        known = known_digests(connection, model_no, digests)
    return to_send.without({index for index, digest in enumerate(digests) if digest in known})


def _requests_of(maker: CallMaker, to_send: RowsToSend, history: ChunkHistory) -> list[Request]:
    alone = {index for index, row in enumerate(to_send.rows) if row in history.single}
    together = to_send.without(alone)
    single = [Request([to_send.rows[index]], [to_send.texts[index]]) for index in sorted(alone)]
    return [*maker.asking.plan(*together), *single]


def _add(
    packed: Packed,
    number: int,
    requests: Sequence[Request],
    calls: Sequence[NumberedCall],
    max_requests: int,
    prices: PriceList,
) -> bool:
    """Add a chunk if there is room for it, or what fits of it if it is the first. False: the remote batch is full."""
    kept = size_bytes = texts = bound = tokens = 0
    for request, call in zip(requests, calls, strict=True):
        line_bytes = len(line_of(call))
        cost = upper_bound(call.call, prices, Mode.BATCH.value) if packed.left is not None else 0
        if packed.left is not None and packed.bound + bound + cost > packed.left:
            packed.too_dear = cost
            break
        if packed.tokens_left is not None and packed.tokens + tokens + request.tokens > packed.tokens_left:
            packed.exceeds_month = True
            break
        # the first goes whatever its size: Mistral says what it thinks of a line that is too long
        is_first = not packed.count + kept
        if not is_first and (
            packed.count + kept >= max_requests
            or packed.size_bytes + size_bytes + line_bytes > MAX_FILE_BYTES
            or (call.call.endpoint is Endpoint.EMBEDDINGS and packed.rows + texts + len(request) > MAX_EMBEDDED_TEXTS)
        ):
            break
        kept, size_bytes, texts, bound = kept + 1, size_bytes + line_bytes, texts + len(request), bound + cost
        tokens += request.tokens
    # near a limit that limit decides, not the chunk
    is_near_limit = bool(packed.too_dear) or packed.exceeds_month
    if not kept or (kept < len(requests) and packed.count and not is_near_limit):
        return False
    packed.endpoint, packed.model = calls[0].call.endpoint, calls[0].call.model
    packed.requests[number] = encode_requests([list(request.rows) for request in requests[:kept]])
    packed.count += kept
    packed.lists += sum(len(request) > 1 for request in requests[:kept])
    packed.rows += texts
    packed.size_bytes += size_bytes
    packed.bound += bound
    packed.tokens += tokens
    return kept == len(requests)


def line_of(call: NumberedCall) -> bytes:
    """A call as a line of a file."""
    body: Mapping[str, object] = call.call.body
    return orjson.dumps({"custom_id": call.custom_id, "body": body}) + b"\n"
