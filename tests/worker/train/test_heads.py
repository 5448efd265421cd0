"""Heads: fitted as scikit-learn would, for few rows and for many, kept in a file that nobody can change unnoticed."""

from __future__ import annotations

import resource
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from labelmill.contracts.errors import Permanent
from labelmill.contracts.label_schema import LabelSchema, Target
from labelmill.contracts.specs import Aim
from labelmill.core.storage.local import LocalStorage
from labelmill_worker.evaluate import f1
from labelmill_worker.inference.models.artifacts import ArtifactRefused, save_artifact
from labelmill_worker.inference.models.example_pool import ExamplePool
from labelmill_worker.inference.models.head import Head, probabilities
from labelmill_worker.train.heads import fit as fitting
from labelmill_worker.train.heads.fit import fit_head
from labelmill_worker.train.heads.minibatch import fit_minibatch
from labelmill_worker.train.heads.solvers import fit_sigmoids, fit_softmax
from labelmill_worker.train.heads.thresholds import best_threshold, tune_thresholds
from labelmill_worker.train.heads.vector_rows import VectorRows, write_vector_rows

DIMENSIONS = 16
SINGLE = Target("intent", ("a", "b", "c"))
MULTI = Target("tags", ("x", "y", "z"), multi=True)


def made_up(folder: Path, count: int, schema: LabelSchema, seed: int = 1, name: str = "train") -> VectorRows:
    """Rows whose labels can be read from their vectors, with some noise."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(0).normal(size=(8, DIMENSIONS))
    vectors = rng.normal(size=(count, DIMENSIONS)).astype(np.float16)
    margins = vectors.astype(np.float64) @ directions.T + rng.normal(scale=0.3, size=(count, 8))
    rows = []
    for row in range(count):
        labels: dict[str, Any] = {}
        for target in schema.targets:
            mine = margins[row, : len(target.labels)]
            if target.multi:
                labels[target.name] = [label for label, one in zip(target.labels, mine, strict=True) if one > 2]
            else:
                labels[target.name] = target.labels[int(mine.argmax())]
        rows.append((vectors[row].tobytes(), labels))
    return write_vector_rows(folder / name, schema, rows)


def all_rows(rows: VectorRows) -> np.ndarray[Any, Any]:
    return np.arange(rows.count)


def test_one_vs_rest_solved_together_is_what_scikit_learn_solves_one_by_one(tmp_path: Path) -> None:
    rows = made_up(tmp_path, 400, LabelSchema((MULTI,)))
    vectors, present = rows.take(all_rows(rows)), rows.labels[0].present(all_rows(rows))
    found = fit_sigmoids(vectors, present, 2.0)
    scores = probabilities(vectors @ found.weights + found.intercepts, MULTI)
    for number in range(3):
        alone = LogisticRegression(C=2.0, tol=1e-6, max_iter=1000).fit(vectors, present[:, number])
        assert np.abs(scores[:, number] - alone.predict_proba(vectors)[:, 1]).max() < 0.02


def test_many_rows_are_fitted_as_well_in_mini_batches(tmp_path: Path) -> None:
    schema = LabelSchema((SINGLE, MULTI))
    rows, held = made_up(tmp_path, 9_000, schema), made_up(tmp_path, 2_000, schema, seed=2, name="held")
    unseen = held.take(all_rows(held))
    for number, target in enumerate(schema.targets):
        labels = rows.labels[number]
        whole = fitting.solve(rows.take(all_rows(rows)), labels, all_rows(rows), 8.0)
        parts = fit_minibatch(rows, labels, 8.0)
        truth = held.labels[number].present(all_rows(held))
        losses = [
            fitting.log_loss(probabilities(unseen @ one.weights + one.intercepts, target), truth, target)
            for one in (whole, parts)
        ]
        assert losses[1] < losses[0] * 1.1 + 0.01, target.name


def test_a_hundred_rows_are_enough_to_learn_from(tmp_path: Path) -> None:
    schema = LabelSchema((SINGLE,))
    fitted = fit_head(made_up(tmp_path, 100, schema), made_up(tmp_path, 300, schema, 2, "held"), schema)
    assert fitted.report["intent"]["validation"]["accuracy"] > 0.8
    assert fitted.report["intent"]["C"] in fitting.STRENGTHS


def test_without_a_validation_split_thresholds_come_from_rows_the_fit_had_not_seen(tmp_path: Path) -> None:
    schema = LabelSchema((MULTI,))
    fitted = fit_head(made_up(tmp_path, 300, schema), None, schema)
    assert set(fitted.thresholds["tags"]) == {"x", "y", "z"}
    assert "validation" not in fitted.report["tags"]


def test_labels_that_train_does_not_have_are_never_chosen_and_break_nothing(tmp_path: Path) -> None:
    known = LabelSchema((SINGLE, MULTI))
    wide = LabelSchema(
        (Target("intent", ("a", "b", "c", "never")), Target("tags", ("x", "y", "z", "never"), multi=True))
    )
    made_up(tmp_path, 200, known)
    rows = [
        (np.full(DIMENSIONS, value, "<f2").tobytes(), {"intent": intent, "tags": tags})
        for value, intent, tags in [(1, "a", ["x"]), (-1, "b", ["y"]), (0, "c", ["z", "unheard of"])] * 10
    ]
    train = write_vector_rows(tmp_path / "wide", wide, rows)
    only_validation = [(rows[0][0], {"intent": "never", "tags": ["never"]}), (rows[1][0], {"intent": "unheard of"})] * 3
    fitted = fit_head(train, write_vector_rows(tmp_path / "held", wide, only_validation), wide)
    intent, tags = fitted.head.scores(train.take(all_rows(train)))
    assert (intent.argmax(axis=1) < 3).all()
    assert tags[:, 3].max() < 1e-6
    assert np.isfinite(intent).all()


def test_two_labels_and_one_label_make_scores_that_sum_to_one() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    codes = (vectors[:, 0] > 0).astype(np.int32)
    both = fit_softmax(vectors, codes, 2, 1.0)
    scores = probabilities(vectors @ both.weights + both.intercepts, Target("t", ("a", "b")))
    assert scores.sum(axis=1) == pytest.approx(1)
    expected = LogisticRegression(C=1.0).fit(vectors, codes).predict_proba(vectors)
    assert np.abs(scores - expected).max() < 0.01
    alone = fit_softmax(vectors, np.zeros(40, np.int32), 1, 1.0)
    assert (probabilities(vectors @ alone.weights + alone.intercepts, Target("t", ("a",))) == 1).all()


@pytest.fixture
def head() -> Head:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(DIMENSIONS, 3)).astype(np.float32) for _ in range(2)]
    return Head(LabelSchema((SINGLE, MULTI)), weights, [np.zeros(3, np.float32)] * 2)


def test_a_head_is_read_as_it_was_written_and_the_same_head_makes_the_same_bytes(head: Head, tmp_path: Path) -> None:
    digest = head.save(LocalStorage(tmp_path), "deep/head.zip")
    assert head.save(LocalStorage(tmp_path), "again.zip") == digest
    read = Head.load(tmp_path / "deep" / "head.zip", digest, "m@1", head.schema)
    vectors = np.ones((2, DIMENSIONS), np.float32)
    assert all(map(np.array_equal, read.scores(vectors), head.scores(vectors)))
    assert (read.schema, read.dimensions) == (head.schema, DIMENSIONS)


def test_a_head_that_was_changed_anywhere_is_refused(head: Head, tmp_path: Path) -> None:
    path = tmp_path / "head.zip"
    digest = head.save(LocalStorage(tmp_path), path.name)
    whole = path.read_bytes()
    changed = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
    for data in (*changed, whole[:-1], whole + b"\0", b""):
        path.write_bytes(data)
        with pytest.raises(ArtifactRefused, match=r"model m@1 is not the one that was trained.*train it again"):
            Head.load(path, digest, "m@1", head.schema)
    path.unlink()
    with pytest.raises(
        ArtifactRefused,
        match=r"cannot be read: [^(]*\(head\.zip in the data folder\): put it back, or train it again",
    ):
        Head.load(path, digest, "m@1", head.schema)


def test_a_head_for_other_labels_is_refused(head: Head, tmp_path: Path) -> None:
    path = tmp_path / "head.zip"
    turned = LabelSchema((Target("intent", ("b", "a", "c")), MULTI))
    digest = head.save(LocalStorage(tmp_path), path.name)
    with pytest.raises(ArtifactRefused, match="is for other labels than the model's"):
        Head.load(path, digest, "m@1", turned)
    short = Head(head.schema, [head.weights[0][:, :2], head.weights[1]], head.intercepts)
    with pytest.raises(ArtifactRefused, match="is for other labels than the model's"):
        Head.load(path, short.save(LocalStorage(tmp_path), path.name), "m@1", head.schema)


def test_a_file_of_another_kind_or_of_a_later_version_names_the_remedy(head: Head, tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    pool = ExamplePool.of(
        LabelSchema((SINGLE,)), [{"text": "t", "labels": {"intent": "a"}}], np.ones((1, 4), np.float32)
    )
    with pytest.raises(ArtifactRefused, match="is another model's"):
        Head.load(path, pool.save(LocalStorage(tmp_path), path.name), "m@1", head.schema)
    with pytest.raises(ArtifactRefused, match=r"written by a later Labelmill.*upgrade this worker"):
        Head.load(
            path,
            save_artifact(LocalStorage(tmp_path), path.name, {"format": 2, "kind": "head"}, {}),
            "m@1",
            head.schema,
        )
    for document in ({"kind": "head"}, {"kind": "head", "targets": 7}, {}):
        with pytest.raises(ArtifactRefused, match="cannot be understood"):
            Head.load(path, save_artifact(LocalStorage(tmp_path), path.name, document, {}), "m@1", head.schema)


def test_no_file_of_a_model_is_unpickled(head: Head, tmp_path: Path) -> None:
    path = tmp_path / "head.zip"
    head.save(LocalStorage(tmp_path), path.name)
    harmful = np.array([{"a": 1}], dtype=object)
    with zipfile.ZipFile(path, "a") as archive, archive.open("weights_9.npy", "w") as member:
        np.lib.format.write_array(member, harmful, allow_pickle=True)
    import hashlib  # noqa: PLC0415

    with pytest.raises(ArtifactRefused, match="cannot be understood"):
        Head.load(path, hashlib.sha256(path.read_bytes()).hexdigest(), "m@1", head.schema)


def test_the_threshold_with_the_best_f1_lies_between_two_scores() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.2, 0.1], np.float32)
    assert best_threshold(scores, np.array([True, True, True, False, False])) == pytest.approx(0.25)
    assert best_threshold(scores, np.array([False] * 5)) is None


def test_scores_that_sum_to_one_get_thresholds_that_fit_them() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((400, 3)) < 0.4
    scores = (truth + 0.1 * rng.random((400, 3))).astype(np.float32)
    scores /= scores.sum(axis=1, keepdims=True)
    limits = tune_thresholds(scores, truth, MULTI)
    holds = scores >= np.array([limits[label] for label in MULTI.labels])
    usual = scores >= 0.5
    assert (holds == truth).mean() > 0.9 > (usual == truth).mean() + 0.1
    assert max(limits.values()) < 0.5


def test_a_labels_own_threshold_weighs_the_more_the_more_rows_have_it() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((400, 3), bool)
    truth[:80, 0] = truth[100:180, 1] = truth[:12, 2] = True
    scores = np.where(truth, 0.6, 0.2).astype(np.float32) + rng.random((400, 3)).astype(np.float32) * 0.1
    scores[:, 2] = np.where(truth[:, 2], 0.95, 0.8)  # by itself its threshold would lie between these
    shares = []
    for positives in (12, 90):
        truth[:positives, 2], scores[:positives, 2] = True, 0.95
        own, shared = best_threshold(scores[:, 2], truth[:, 2]), best_threshold(scores.ravel(), truth.ravel())
        assert own is not None
        assert shared is not None
        found = tune_thresholds(scores, truth, MULTI)["z"]
        shares.append((found - shared) / (own - shared))
        assert shares[-1] == pytest.approx(positives / (positives + 30), abs=1e-3)
        assert tune_thresholds(scores, truth, MULTI, "macro")["z"] > found  # rare labels get more of their own
    assert shares[0] < shares[1]
    truth[:, 2] = False
    assert tune_thresholds(scores, truth, MULTI)["z"] == pytest.approx(best_threshold(scores.ravel(), truth.ravel()))


def test_thresholds_are_tuned_for_what_was_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    target = Target("tags", tuple(f"tag {number}" for number in range(12)), multi=True)
    rates = 0.3 * 0.7 ** np.arange(12)

    def drawn(rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        truth = rng.random((rows, 12)) < rates
        seen = np.where(truth, 1.0, -1.0) + rng.normal(size=(rows, 12))
        logits = 2 * seen + np.log(rates / (1 - rates))  # what seeing that says of the label
        return (1 / (1 + np.exp(-logits))).astype(np.float32), truth

    held, real = drawn(20_000)
    found: dict[str, dict[str, float]] = {"micro": {}, "macro": {}, "precision": {}}
    for _ in range(20):
        scores, truth = drawn(300)
        for aim, sums in found.items():
            limits = tune_thresholds(scores, truth, target, cast("Aim", aim))
            given = held >= np.array([limits[label] for label in target.labels], np.float32)
            averages = f1.averages(*f1.counts(real, given), present_only=False)
            measured = {name: float(averages[name]) for name in ("micro_f1", "macro_f1")}
            measured["precision"] = float((given & real).sum() / max(1, given.sum()))
            for name, value in measured.items():
                sums[name] = sums.get(name, 0.0) + value / 20
    assert max(found, key=lambda aim: found[aim]["micro_f1"]) == "micro"
    assert max(found, key=lambda aim: found[aim]["macro_f1"]) == "macro"
    assert found["precision"]["precision"] > found["micro"]["precision"] + 0.05


def test_vectors_of_two_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="several lengths"):
        write_vector_rows(tmp_path / "v", LabelSchema((SINGLE,)), [(b"\0" * 8, {}), (b"\0" * 6, {})])


def test_vectors_of_any_length_find_a_regularisation_that_fits_them(tmp_path: Path) -> None:
    schema = LabelSchema((SINGLE,))
    for scale in (0.01, 100.0):
        plain = made_up(tmp_path, 300, schema, name=f"plain {scale}")
        vectors, labels = plain.take(all_rows(plain)) * scale, plain.labels[0].single(all_rows(plain))
        rows = [
            (row.astype(np.float16).tobytes(), {"intent": SINGLE.labels[code]})
            for row, code in zip(vectors, labels, strict=True)
        ]
        scaled = write_vector_rows(tmp_path / f"scaled {scale}", schema, rows)
        fitted = fit_head(scaled, scaled, schema).report["intent"]
        assert fitted["C"] < 0.5 if scale > 1 else fitted["C"] > 128
        assert sum(fitted["validation"]["given"].values()) == 300
        assert sum(fitted["validation"]["best_scores"]) == 300


def test_a_head_that_a_full_disk_cuts_short_leaves_nothing(tmp_path: Path) -> None:
    head = Head(LabelSchema((SINGLE,)), [np.zeros((1024, 3), np.float32)], [np.zeros(3, np.float32)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # a file can hold no more, as on a disk that is full
    try:
        with pytest.raises(Permanent, match="cannot be written"):
            head.save(LocalStorage(tmp_path), "models/t.zip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "models").iterdir()) == []


def test_labels_that_vectors_tell_apart_get_scores_that_say_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    target = Target("topic", tuple(f"topic {number:02}" for number in range(20)))
    centres = rng.normal(size=(20, 64))

    def drawn(count: int, name: str) -> VectorRows:
        labels = rng.integers(0, 20, count)
        vectors = centres[labels] + rng.normal(scale=1.5, size=(count, 64))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) * 3  # short, as a large C has to make up for
        rows = [
            (vector.astype(np.float16).tobytes(), {"topic": target.labels[label]})
            for vector, label in zip(vectors, labels, strict=True)
        ]
        return write_vector_rows(tmp_path / name, LabelSchema((target,)), rows)

    fitted = fit_head(drawn(300, "train"), test := drawn(1_000, "test"), LabelSchema((target,)))
    (scores,) = fitted.head.scores(test.take(all_rows(test)))
    right = scores.argmax(axis=1) == test.labels[0].single(all_rows(test))
    assert abs(float(scores.max(axis=1).mean() - right.mean())) < 0.05


def test_many_labels_of_few_rows_are_fitted_to_the_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    target = Target("topic", tuple(f"topic {number:03}" for number in range(80)))
    centres = rng.normal(size=(80, 64))

    def drawn(each: int, name: str) -> VectorRows:
        labels = np.repeat(np.arange(80), each)
        vectors = centres[labels] + rng.normal(scale=1.6, size=(len(labels), 64))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = [
            (vector.astype(np.float16).tobytes(), {"topic": target.labels[label]})
            for vector, label in zip(vectors, labels, strict=True)
        ]
        return write_vector_rows(tmp_path / name, LabelSchema((target,)), rows)

    train, test = drawn(6, "train"), drawn(10, "test")
    rows = all_rows(train)
    vectors, codes = train.take(rows), train.labels[0].single(rows)
    unseen, truth = test.take(all_rows(test)), test.labels[0].present(all_rows(test))
    start, losses = None, []
    for strength in (128.0, 32_768.0):
        start = fit_softmax(vectors, codes, 80, strength, start)
        losses.append(fitting.log_loss(probabilities(unseen @ start.weights + start.intercepts, target), truth, target))
    to_the_end = LogisticRegression(C=32_768.0, tol=1e-7, max_iter=2_000).fit(vectors, codes)
    best = fitting.log_loss(to_the_end.predict_proba(unseen).astype(np.float32), truth, target)
    assert losses[1] < best * 1.1 + 0.01, (losses, best)
    cold = fit_softmax(vectors, codes, 80, 32_768.0)
    alone = fitting.log_loss(probabilities(unseen @ cold.weights + cold.intercepts, target), truth, target)
    assert alone < best * 1.1 + 0.01, (alone, best)


def test_the_weakest_regularisation_of_the_grid_is_weak_enough(tmp_path: Path) -> None:
    train = made_up(tmp_path, 300, LabelSchema((SINGLE,)))
    assert fitting.STRENGTHS[-1] > 1_000_000
    assert fitting.choose_strength(train, train.labels[0]).strength < fitting.STRENGTHS[-1]
