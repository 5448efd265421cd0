"""The emulator's own models: n-grams, weights, embeddings and classifiers."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from labelmill_ops.emulator.classifier import Classifier, train
from labelmill_ops.emulator.embedding import embed
from labelmill_ops.emulator.features import ngram_columns
from labelmill_ops.emulator.training_data import TrainingData, read_training_data
from labelmill_ops.emulator.weighting import TfidfWeights

TEXTS = ["will it rain", "is it  sunny today", "play a song", "play some jazz please", "will it play", "rain rain rain"]
LABELS = ["weather", "weather", "music", "music", "music", "weather"]


def training_data(labels: list[object]) -> TrainingData:
    rows = [{"text": text, "labels": {"intent": label}} for text, label in zip(TEXTS, labels, strict=True)]
    return read_training_data([("train.jsonl", b"\n".join(map(orjson.dumps, rows)))], [], None)


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_a_text_has_the_same_ngrams_alone_and_among_others(texts: list[str]) -> None:
    rows, columns = ngram_columns(texts)
    for number, text in enumerate(texts):
        alone = ngram_columns([text])[1]
        assert sorted(columns[rows == number]) == sorted(alone)


def test_weights_are_those_of_scikit_learn() -> None:
    ours = TfidfWeights.fitted_to(TEXTS).weigh(TEXTS).toarray()
    words = TfidfVectorizer(ngram_range=(1, 2)).fit_transform(TEXTS)
    characters = TfidfVectorizer(analyzer="char", ngram_range=(2, 5)).fit_transform(TEXTS)
    assert ours.shape[1] == words.shape[1] + characters.shape[1]
    theirs = (words @ words.T + characters @ characters.T).toarray()
    assert ours @ ours.T == pytest.approx(theirs, abs=1e-5)


def test_a_text_with_nothing_known_has_no_weights_but_scores() -> None:
    classifier = train(training_data(list(LABELS)))
    (result,) = classifier.classify(["日本語"])
    assert sum(result["intent"]["scores"].values()) == pytest.approx(1)


def test_a_saved_model_answers_as_before(tmp_path: Path) -> None:
    classifier = train(training_data(list(LABELS)))
    classifier.save(tmp_path)
    assert Classifier.load(tmp_path).classify(TEXTS) == classifier.classify(TEXTS)


def test_a_label_on_every_row_of_a_multi_label_target_is_always_likely() -> None:
    classifier = train(training_data([[label, "utterance"] for label in LABELS]))
    for result in classifier.classify(["will it rain", "something else"]):
        assert result["intent"]["scores"]["utterance"] > 0.99


def test_training_stops_with_what_a_checkpoint_raises() -> None:
    def stop(number: int, of: int, losses: object) -> None:
        raise InterruptedError(number, of, losses)

    with pytest.raises(InterruptedError):
        train(training_data(list(LABELS)), on_checkpoint=stop)


def test_embeddings_are_of_length_one_and_closer_for_closer_texts() -> None:
    vectors = embed(["play a song", "play the song", "is it cold outside", "..."])
    assert vectors.shape == (4, 1024)
    assert np.linalg.norm(vectors[:3], axis=1) == pytest.approx(1)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
