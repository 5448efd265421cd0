"""From the outcomes of requests to what SQL is told of a chunk. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from labelmill_worker.inference.answers import abstain_under, decide, label_limits
from labelmill_worker.inference.outcomes import Answer, RowFailed
from labelmill_worker.store.chunks import Claim
from labelmill_worker.store.predictions import PredictionBlock
from labelmill_worker.store.progress import ChunkProgress


def tally(
    claim: Claim,
    answers: Sequence[Answer],
    failures: Iterable[RowFailed],
    *,
    requests: int = 0,
    further_tokens: int = 0,
) -> ChunkProgress:
    """What to record. Counts are of rows with their duplicates, which are answered by the same answer.
    `further_tokens`: those that no answer tells of."""
    progress = ChunkProgress(requests=requests, tokens=further_tokens)
    if answers:
        _add_answers(progress, claim, answers)
    for failure in failures:
        name = claim.input.ids[failure.row - claim.first_row] if claim.input.ids else None
        progress.errors.append((claim.batch_no, failure.row, name, failure.error.code, failure.error.message))
        progress.failed += 1 + claim.repeats.get(failure.row, 0)
    return progress


def _add_answers(progress: ChunkProgress, claim: Claim, answers: Sequence[Answer]) -> None:
    schema = answers[0].schema  # one model's: the same of all
    requests = [answer.request for answer in answers]
    rows = np.concatenate([request.row_numbers for request in requests])
    ids = claim.input.ids
    names = None
    if ids is not None:
        names = [*chain.from_iterable(request.values_of(ids, claim.first_row) for request in requests)]
    has_abstained = np.zeros(len(rows), bool)
    models = claim.options.get("model_thresholds")
    if models is None:  # an earlier Labelmill submitted it
        models = claim.model.thresholds
    for number, target in enumerate(schema.targets):
        parts = [answer.scores[number] for answer in answers]
        scores = parts[0] if len(parts) == 1 else np.concatenate(parts)
        threshold = abstain_under(target, claim.options.get("thresholds"), models)
        decided = decide(scores, target, threshold, label_limits(target, models))
        has_abstained |= decided.abstained
        progress.blocks.append(
            PredictionBlock(number, rows, names, decided.labels, decided.label_lists, decided.best, scores)
        )
    abstained, weight = int(has_abstained.sum()), len(rows)
    if claim.repeats:
        weights = np.array([1 + claim.repeats.get(row, 0) for row in rows.tolist()])
        abstained, weight = int(weights[has_abstained].sum()), int(weights.sum())
    progress.abstained += abstained
    progress.labelled += weight - abstained
    cached = [row for answer in answers if answer.is_cached for row in answer.request.rows]
    progress.cached += sum(1 + claim.repeats.get(row, 0) for row in cached)
    progress.tokens += sum(answer.tokens for answer in answers)
    progress.vectors += [vector for answer in answers for vector in answer.vectors]
