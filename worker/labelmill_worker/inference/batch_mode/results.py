"""Recording the results of a remote batch: lines come in any order, some twice, some not at all.

Answers are recorded while the files are read, some thousand texts at a time, each chunk's in one transaction; a line
whose rows have their outcome is passed over. So reading may begin anew at any time. When all is read, each chunk is let
go: rows without an outcome are sent again, or fail (`verdicts.py`).
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import structlog

from labelmill.contracts.errors import (
    InvalidInput,
    LabelmillError,
    MalformedAnswer,
    RemoteFailed,
    RemoteUnavailable,
    RequestRefused,
)
from labelmill.contracts.inner_methods import VECTORS
from labelmill.contracts.label_schema import LabelSchema
from labelmill.contracts.states import Mode
from labelmill.contracts.usage import Usage
from labelmill.core.chunks.sizes import CHUNK_TEXTS
from labelmill.core.database import reading, writing
from labelmill.core.database.tables import ModelRow
from labelmill_worker.inference.batch_mode.custom_ids import Place, place_of
from labelmill_worker.inference.batch_mode.packing import record_held
from labelmill_worker.inference.batch_mode.verdicts import MAX_FAILED_JOBS, ChunkHistory, LineFailure, refusal_of_all
from labelmill_worker.inference.batch_mode.work import RemoteWork
from labelmill_worker.inference.counted_usage import counted_usage
from labelmill_worker.inference.outcomes import Answer, RowFailed
from labelmill_worker.inference.planning import Request
from labelmill_worker.inference.tally import tally
from labelmill_worker.inference.unanswered_rows import unanswered_rows
from labelmill_worker.mistral.http_errors import error_for_status
from labelmill_worker.mistral.refused_fields import FieldRefused
from labelmill_worker.ports.batch_jobs import ResultLine
from labelmill_worker.ports.inference import Endpoint, Reply
from labelmill_worker.store.chunks import Claim, has_answers, save_learned_schema
from labelmill_worker.store.progress import ChunkProgress
from labelmill_worker.store.remote_batches import decode_requests, failures_of, held_chunks, let_go
from labelmill_worker.store.vectors import rows_with_vectors

log = structlog.get_logger()

_TEXTS_AT_ONCE = CHUNK_TEXTS  #: Whose results are held in memory: those of one chunk, which is claimed once for them …
_VECTORS_AT_ONCE = 1_000  #: … or if they are vectors, of which one takes 32 KB until it is read.


class ResultReader:
    """Reads the results of one remote batch."""

    def __init__(self, work: RemoteWork) -> None:
        self._work, self._row = work, work.claim.row
        self._maker = work.call_maker()
        self._strategy = self._maker.asking
        self._schema: LabelSchema | None = self._strategy.schema
        self._held = held_chunks(work.engine, work.claim)
        self._vector_model: ModelRow | None = None
        if self._row.embeds:
            name = self._strategy.model
            self._vector_model = ModelRow(
                no=self._maker.vector_model_no, name=name, version=0, remote_model=name, method=VECTORS
            )
        at_once = _VECTORS_AT_ONCE if self._row.endpoint == Endpoint.EMBEDDINGS else _TEXTS_AT_ONCE
        self._lines_at_once = max(1, at_once * self._row.requests // max(1, self._row.rows))
        self._waiting: dict[int, list[tuple[int, ResultLine]]] = defaultdict(list)
        self._count = 0
        self._failures: dict[Place, LineFailure] = {}
        self._known_failures: dict[tuple[type, str], LabelmillError] = {}
        self._answered: dict[int, bytearray] = {}  #: Chunk → 1 for each request of it that was answered.
        self._refused_lists: set[Place] = set()
        self._usages_of_nobody: list[Usage] = []  #: Of answers that do not say whose they are.
        self._answers_let_go = 0
        self._undelivered = 0.0
        self.answers = self.single_answers = 0

    def read(self, lines: Iterable[ResultLine]) -> None:
        """Record the answers among some lines. Raises what the lines raise, once what came before is recorded."""
        try:
            for line in lines:
                place = place_of(line.custom_id)
                if place is None:
                    self._note_of_nobody(line)
                    continue
                if place.chunk not in self._held:  # it was let go before this reading began
                    self._answers_let_go += _is_answered(line)
                    continue
                self._waiting[place.chunk].append((place.request, line))
                self._count += 1
                if self._count >= self._lines_at_once:
                    self._record_waiting()
        finally:
            self._record_waiting()

    def refusal(self) -> LabelmillError | None:
        """Why the whole batch is refused; None: it is not, or something of it was answered."""
        if self.answers:
            return None
        error = refusal_of_all(list(self._failures.values()), lists=self.refused_lists)
        return None if error is None or has_answers(self._work.engine, self._row.batch_no) else error

    @property
    def has_lines(self) -> bool:
        """Whether any request was answered or refused."""
        return bool(self.answers or self._failures)

    @property
    def refused_lists(self) -> int:
        """How many requests with several texts were refused."""
        return len(self._refused_lists)

    @property
    def answered_requests(self) -> int:
        """How many requests were answered, usably or not: each counts once, however often its line came."""
        return sum(map(sum, self._answered.values())) + self._answers_let_go

    @property
    def requests_with_lines(self) -> int:
        """How many requests were answered or refused."""
        refused = sum(not self._answered[place.chunk][place.request] for place in self._failures)
        return self.answered_requests + refused

    def refusal_of_jobs(self, words: str) -> LabelmillError | None:
        """Why the batch is stopped whose jobs Mistral ends as failed, without a line, one after the other. `words`:
        what it says of the last. None: it may go well yet, or something of the batch was answered."""
        chunk, batch_no = next(iter(self._held), -1), self._row.batch_no
        with reading(self._work.engine) as connection:
            tries = ChunkHistory.from_json(failures_of(connection, batch_no, chunk)).tries
        if max(tries.values(), default=0) + 1 < MAX_FAILED_JOBS or has_answers(self._work.engine, batch_no):
            return None
        return RemoteFailed(f"Mistral ends its batch jobs as failed: {words or 'it does not say why'}")

    def let_chunks_go(self, *, missing: LabelmillError | None, is_wanted: bool, undelivered: int | None) -> None:
        """Decide on every row without an outcome, and let its chunk go. `missing`: why a request without a line counts
        as tried; None: it does not. `is_wanted`: the batch goes on. `undelivered`: so many of the requests without a
        line count as paid for; None: all of them."""
        self._undelivered = math.inf if undelivered is None else undelivered
        for chunk, data in self._held.items():
            self._work.check()
            self._let_go(chunk, decode_requests(data), missing, is_wanted=is_wanted)

    def _record_waiting(self) -> None:
        waiting, self._waiting, self._count = self._waiting, defaultdict(list), 0
        for chunk in sorted(waiting):
            self._work.check()
            self._record(chunk, decode_requests(self._held[chunk]), waiting[chunk])

    def _record(self, chunk: int, requests: list[list[int]], lines: list[tuple[int, ResultLine]]) -> None:
        claim = self._claim(chunk)
        if claim is None:
            return
        done = self._outcomes_of(claim)
        answers: list[Answer] = []
        usages: list[Usage] = []
        answered = self._answered.setdefault(chunk, bytearray(len(requests)))
        for number, line in lines:
            if number >= len(requests):
                continue
            rows = requests[number]
            place = Place(chunk, number)
            if _is_answered(line):
                self.answers += 1
                self.single_answers += len(rows) == 1
                answered[number] = 1
            if done.issuperset(rows):
                continue
            request = Request(rows, [claim.input.texts[row - claim.first_row] for row in rows])
            usage = None
            try:
                reply = reply_of(line)
                usage = self._usage(request, reply)
                answers.append(self._strategy.read(request, reply, self._labels(request, reply)))
            except InvalidInput:
                raise
            except LabelmillError as error:
                shared = self._shared(request, error)
                if isinstance(shared, RequestRefused) and len(rows) > 1:
                    self._refused_lists.add(place)
                self._failures[place] = LineFailure(shared, usage)
            else:
                usages.append(usage)
                done.update(rows)
                self._failures.pop(place, None)
        record_held(self._work, claim, self._progress(claim, answers, usages), done=False)

    def _claim(self, chunk: int) -> Claim | None:
        claim = self._work.claim_chunk(chunk)
        if claim is not None and self._vector_model is not None:
            return replace(claim, model=self._vector_model)  # whose vectors are kept, and paid for
        return claim

    def _outcomes_of(self, claim: Claim) -> set[int]:
        """The rows that need nothing more of this remote batch."""
        if self._vector_model is None:
            return set(claim.answered)
        with reading(self._work.engine) as connection:
            return rows_with_vectors(connection, self._vector_model.no, claim.input, claim.first_row) | claim.answered

    def _labels(self, request: Request, reply: Reply) -> LabelSchema:
        if self._schema is None:
            learned = self._strategy.learn(request, reply).to_json()
            model_no = self._work.claim.batch.model.no
            self._schema = LabelSchema.from_json(save_learned_schema(self._work.engine, model_no, learned))
        return self._schema

    def _note_of_nobody(self, line: ResultLine) -> None:
        """An answer that does not say whose it is was paid for: by some request that has no other line."""
        with contextlib.suppress(LabelmillError):
            usage = reply_of(line).usage(self._strategy.model, Mode.BATCH.value)
            if usage is not None and len(self._usages_of_nobody) < self._row.requests:
                self._usages_of_nobody.append(usage)

    def _usage(self, request: Request, reply: Reply | None) -> Usage:
        """`reply`: None where none came."""
        mode = Mode.BATCH.value
        usage = None if reply is None else reply.usage(self._strategy.model, mode)
        if reply is None and self._usages_of_nobody:
            usage = self._usages_of_nobody.pop()
        if usage is None:
            usage = counted_usage(self._maker.call(request, None), request, mode)
        if not self._row.reserved:
            return usage
        # its share of what was reserved: the call made anew, without vectors or at other prices, has another bound
        return replace(usage, held=max(1, self._row.reserved // max(1, self._row.requests)))

    def _progress(self, claim: Claim, answers: list[Answer], usages: list[Usage]) -> ChunkProgress:
        if self._vector_model is None:
            progress = tally(claim, answers, (), requests=len(answers))
            progress.usages = usages
            return progress
        return ChunkProgress(  # vectors are no answers: the rows still need theirs
            requests=len(answers),
            usages=usages,
            tokens=sum(answer.tokens for answer in answers),
            vectors=[vector for answer in answers for vector in answer.vectors],
        )

    def _shared(self, request: Request, error: LabelmillError) -> LabelmillError:
        """One error for all lines that failed alike: there may be a hundred thousand."""
        kind = (type(error), str(error))
        if kind not in self._known_failures:
            self._known_failures[kind] = self._field_refused(request, error) or error
        return self._known_failures[kind]

    def _field_refused(self, request: Request, error: LabelmillError) -> FieldRefused | None:
        """Where a line was refused for an optional field: its rows are sent again without it, as are all later ones."""
        if not isinstance(error, RequestRefused):
            return None
        sent = self._strategy.call(request, None).body
        return self._maker.refused_fields.refusal(self._strategy.model, sent, error)

    def _let_go(
        self, chunk: int, requests: list[list[int]], missing: LabelmillError | None, *, is_wanted: bool
    ) -> None:
        claim = self._claim(chunk)
        batch_no = self._row.batch_no
        if claim is None:
            with writing(self._work.engine) as connection:
                let_go(connection, batch_no, chunk, None)
            return
        done = self._outcomes_of(claim)
        with reading(self._work.engine) as connection:
            history = ChunkHistory.from_json(failures_of(connection, batch_no, chunk))
        failed: list[RowFailed] = []
        requests_sent = 0
        usages: list[Usage] = []
        for number, rows in enumerate(requests):
            left = [row for row in rows if row not in done]
            if not left:
                continue
            failure = self._failures.get(Place(chunk, number))
            if failure is not None:
                requests_sent += 1
                usages += [failure.usage] if failure.usage is not None else []
            elif self._undelivered > 0:
                self._undelivered -= 1
                requests_sent += 1
                request = Request(rows, [claim.input.texts[row - claim.first_row] for row in rows])
                usages.append(self._usage(request, None))
            failed += history.judge(left, failure, of_list=len(rows) > 1, missing=missing)
        if not is_wanted:
            failed = []
        answered = claim.answered | {row.row for row in failed}
        left_of_chunk = unanswered_rows(replace(claim, answered=frozenset(answered)))[0].rows
        tokens = sum(usage.input_tokens + usage.output_tokens for usage in usages if not usage.is_estimated)
        progress = tally(claim, (), failed, requests=requests_sent, further_tokens=tokens)
        progress.usages = usages
        stored = history.to_json(left_of_chunk)
        record_held(
            self._work,
            claim,
            progress,
            done=not left_of_chunk,
            then=lambda connection: let_go(connection, batch_no, chunk, stored),
        )


def _is_answered(line: ResultLine) -> bool:
    return line.document is not None and line.status in (None, 200)


def reply_of(line: ResultLine) -> Reply:
    """The reply that a line holds. Raises the error that it stands for."""
    if line.status not in (None, 200):
        raise error_for_status(line.status, line.error or "")
    if line.document is not None and line.error is None:
        return Reply(line.document)
    if line.status == 200:
        raise MalformedAnswer("a result of Mistral's batch job holds no answer")
    raise RemoteUnavailable(f"Mistral's batch job did not answer: {line.error or 'it does not say why'}")
