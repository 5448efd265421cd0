"""The bundled sample: generated, uneven, learnable and not trivially so."""

from collections import Counter

import orjson

from labelmill_ops.emulator.classifier import train
from labelmill_ops.emulator.training_data import read_training_data
from labelmill_ops.sample import SAMPLE_PATH
from labelmill_ops.sample.fillers import FILLERS
from labelmill_ops.sample.generate import as_jsonl, utterances
from labelmill_ops.sample.phrases import AMBIGUOUS, PATTERNS, SIZES


def test_the_shipped_file_is_what_the_generator_writes() -> None:
    assert SAMPLE_PATH.read_text(encoding="utf-8") == as_jsonl()


def test_there_are_enough_distinct_utterances_of_sixteen_uneven_intents() -> None:
    rows = list(utterances())
    assert len({row["text"] for row in rows}) == len({row["id"] for row in rows}) == len(rows) >= 2400
    sizes = Counter(row["intent"] for row in rows)
    assert sizes == SIZES
    assert len(sizes) == 16
    assert min(sizes.values()) >= 100
    assert max(sizes.values()) > 2 * min(sizes.values())
    assert all(row["lang"] == "en" and row["text"].strip() == row["text"] != "" for row in rows)


def test_every_shared_pattern_names_known_intents_and_no_slot_repeats_a_filler() -> None:
    assert {intent for intents, _ in AMBIGUOUS for intent in intents} <= PATTERNS.keys() == SIZES.keys()
    assert all(len(set(fillers)) == len(fillers) for fillers in FILLERS.values())


def test_the_sample_is_learnable_but_not_trivially_separable() -> None:
    rows = list(utterances())
    held_out = rows[::10]
    lines = [
        orjson.dumps({"text": row["text"], "labels": {"intent": row["intent"]}})
        for number, row in enumerate(rows)
        if number % 10
    ]
    classifier = train(read_training_data([("train.jsonl", b"\n".join(lines))], [], None), checkpoints=1)
    answers = classifier.classify([row["text"] for row in held_out])
    best = [max(answer["intent"]["scores"].items(), key=lambda item: item[1])[0] for answer in answers]
    right = sum(label == row["intent"] for label, row in zip(best, held_out, strict=True))
    assert 0.85 <= right / len(held_out) <= 0.96
