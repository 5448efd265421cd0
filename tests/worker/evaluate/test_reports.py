"""What the reports of real jobs say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from asked import gather_report, submit_batch, submit_evaluation
from sqlalchemy import insert, update
from sqlalchemy.engine import Engine
from strict_mistral import LABELS, StrictMistral, label_of, ok, refuse_texts_with
from workshop import SCHEMA, Workshop

from labelmill.contracts.errors import NotFound
from labelmill.core.database import writing
from labelmill.core.database.analysis_codec import save_analysis
from labelmill.core.database.tables import BatchRow, DatasetRow, EvaluationRow, TrainingRow
from labelmill.report.page import page_of
from labelmill.report.parts import Figure, Grid, Note, Report

LIKENESS = {
    "checked": {"train": 3, "test": 20},
    "repeated": {"train": 0, "test": 0},
    "leaked": {"test in train": 3},
    "conflicting": 0,
    "near": {"checked": {"train": 3, "test": 20}, "rows": 0, "leaked": {}},
    "pairs": [
        {
            "likeness": 1.0,
            "rows": [
                {"split": "train", "row": 0, "text": "Play jazz", "labels": {"intent": "alpha"}},
                {"split": "test", "row": 1, "text": "play jazz!", "labels": {"intent": "beta"}},
            ],
        }
    ],
}


def answer(texts: list[str], body: dict[str, Any]) -> web.Response:
    """Right but for every tenth text, and sure of it; not sure of texts that say so."""
    results = []
    for text in texts:
        label = label_of(text)
        if text.startswith("wrong"):
            label = next(other for other in LABELS if other != label)
        best = 0.4 if "unsure" in text else 0.91
        results.append({"intent": {"scores": {name: best if name == label else (1 - best) / 3 for name in LABELS}}})
    return ok(results)


@pytest.fixture
def shop(engine: Engine, mistral: StrictMistral, redis_url: str, tmp_path: Path) -> Iterator[Workshop]:
    mistral.faults.append(answer)
    made = Workshop(engine, mistral, redis_url, tmp_path)
    texts = ["wrong <b>text</b> one", "wrong two", *(f"text {n} here" for n in range(18))]
    rows = [{"text": text, "labels": {"intent": label_of(text)}} for text in texts]
    dataset_id = made.dataset("small", SCHEMA, train=rows[:3], test=rows)
    labels = {"intent": {"train": {"alpha": 2, "beta": 1}, "validation": dict.fromkeys(LABELS, 50)}}
    with writing(engine) as connection:
        connection.execute(
            update(DatasetRow).values(
                labels=labels, dropped={"empty_text": 7}, report={"rows_read": 30, "bad_rows": []}
            )
        )
        save_analysis(connection, dataset_id, {"likeness": LIKENESS})
    made.model("m", SCHEMA, dataset_id=dataset_id)
    yield made
    made.close()


def notes(report: Report) -> str:
    return " ".join(part.text for part in report.parts if isinstance(part, Note))


def grid(report: Report, caption: str, *, whole: bool = False) -> list[Any]:
    grids = [part for part in report.parts if isinstance(part, Grid)]
    (found,) = (one for one in grids if one.caption == caption or (not whole and one.caption.startswith(caption)))
    return list(found.rows)


def known(report: Report) -> dict[Any, Any]:
    return dict(row for part in report.parts if isinstance(part, Grid) and not part.headings for row in part.rows)


def figure(report: Report, name: str) -> Any:
    (found,) = (part for part in report.parts if isinstance(part, Figure) and part.name == name)
    return found


def test_an_evaluation_shows_its_metrics_and_its_mistakes(shop: Workshop) -> None:
    job_id = submit_evaluation(shop.engine, shop.sender, model="m", dataset="small")
    done = shop.run(job_id)
    report = gather_report(shop.engine, job_id)
    assert grid(report, "Metrics")[0][:2] == ("accuracy", 0.9)
    low, high = done["metrics"]["intent"]["intervals"]["accuracy"]
    assert f"{low:.4f}" in grid(report, "Metrics")[0][2]
    assert f"{high:.4f}" in grid(report, "Metrics")[0][2]
    assert f"Right in 90.0% of the rows ({low:.1%} to {high:.1%} on other rows like these)" in notes(report)
    texts = ["wrong <b>text</b> one", "wrong two", *(f"text {n} here" for n in range(18))]
    counts = Counter(map(label_of, texts))
    (label, count), *_ = counts.most_common()
    assert f"Always answering the most frequent label, {label}, would be right in {count / 20:.1%}" in notes(report)
    mistakes = grid(report, "Most confident mistakes")
    assert {row[4] for row in mistakes} == {"wrong <b>text</b> one", "wrong two"}
    assert "3 of 20 rows have a text that the model was trained on" in notes(report)
    assert sum(map(sum, figure(report, "intent-confusion").counts)) == 20
    assert sum(figure(report, "intent-scores").counts) == 20
    page = page_of(report)
    assert "wrong &lt;b&gt;text&lt;/b&gt; one" in page
    assert "<b>" not in page


def test_a_batch_shows_what_came_out_and_what_did_not(shop: Workshop, mistral: StrictMistral) -> None:
    mistral.faults.insert(0, refuse_texts_with("refused"))
    texts = [f"text {n}" for n in range(60)] + ["text 1", "refused this", "refused this", "", "unsure 1", "unsure 2"]
    source = shop.folder / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    batch_id = submit_batch(shop.engine, shop.sender, source=str(source), model="m", text="text", thresholds={"*": 0.5})
    done = shop.run(batch_id)
    assert done["rows"]["failed"] == 3, done
    report = gather_report(shop.engine, batch_id)
    assert {(row[0], row[1]) for row in grid(report, "Failed rows")} == {("request_refused", 2), ("empty_text", 1)}
    assert known(report)["duplicates (not sent again)"] == done["duplicates"]
    assert "2 rows (3.03%) abstained" in notes(report)
    counts = figure(report, "intent-scores").counts
    assert (sum(counts), counts[8], counts[18]) == (63, 2, 61)
    assert sum(row[1] for row in grid(report, "Labels", whole=True)) == 61
    assert sum(figure(report, "intent-labels").series["batch"]) == pytest.approx(1)  # of rows that did not abstain
    assert "Drift is not known: of the validation split only the labels are" in notes(report)
    assert grid(report, "Labels that moved most")


def test_a_model_without_a_validation_split_has_no_verdict(shop: Workshop) -> None:
    with writing(shop.engine) as connection:
        connection.execute(update(DatasetRow).values(labels={"intent": {"train": {"alpha": 2}}}))
    source = shop.folder / "texts.jsonl"
    source.write_text('{"text": "one"}\n')
    batch_id = submit_batch(shop.engine, shop.sender, source=str(source), model="m", text="text")
    shop.run(batch_id)
    assert "Drift is not known" in notes(gather_report(shop.engine, batch_id))


def test_a_model_that_errs_as_it_did_on_validation_has_not_drifted(shop: Workshop, tmp_path: Path) -> None:
    texts = [f"text {number} {'x' * (number % 4)}" for number in range(120)]
    rows = [{"text": text, "labels": {"intent": "alpha" if n % 3 else label_of(text)}} for n, text in enumerate(texts)]
    dataset_id = shop.dataset("odd", SCHEMA, validation=rows[:100])
    counts = {"alpha": sum(row["labels"]["intent"] == "alpha" for row in rows[:100])}
    with writing(shop.engine) as connection:
        labels = {"intent": {"validation": counts | {"beta": 100 - counts["alpha"]}}}
        connection.execute(update(DatasetRow).where(DatasetRow.id == dataset_id).values(labels=labels))
    shop.model("erring", SCHEMA, dataset_id=dataset_id)
    source = tmp_path / "again.jsonl"
    source.write_text("".join(json.dumps({"text": f"{text} again"}) + "\n" for text in texts))
    batch_id = submit_batch(shop.engine, shop.sender, source=str(source), model="erring")
    shop.run(batch_id)
    before = notes(gather_report(shop.engine, batch_id))
    assert "Drift is not known" in before
    assert "labelmill evaluate erring@1 --split validation" in before
    shop.run(submit_evaluation(shop.engine, shop.sender, model="erring", dataset="odd", split="validation"))
    after = notes(gather_report(shop.engine, batch_id))
    assert "No drift" in after
    assert "the model's answers to the validation split" in after


def test_drift_names_the_split_it_is_measured_against(shop: Workshop, tmp_path: Path) -> None:
    texts = [f"text {number} {'x' * (number % 4)}" for number in range(120)]
    rows = [{"text": text, "labels": {"intent": label_of(text)}} for text in texts]
    dataset_id = shop.dataset("tested", SCHEMA, test=rows)
    shop.model("tested", SCHEMA, dataset_id=dataset_id)
    shop.run(submit_evaluation(shop.engine, shop.sender, model="tested", dataset="tested"))
    for name, wanted in (("alike", texts), ("other", [text for text in texts if label_of(text) == "alpha"] * 3)):
        source = tmp_path / f"{name}.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in wanted))
        batch_id = submit_batch(shop.engine, shop.sender, source=str(source), model="tested")
        shop.run(batch_id)
        said = notes(gather_report(shop.engine, batch_id))
        assert ("No drift: the labels are spread as in the test split" in said) == (name == "alike"), said
        assert ("Strong drift: the labels are not spread as in the test split" in said) == (name == "other"), said
        assert "validation" not in said


def test_a_training_that_kept_no_scores_is_compared_by_its_labels_and_says_so(shop: Workshop, tmp_path: Path) -> None:
    texts = [f"text {number} {'x' * (number % 4)}" for number in range(120)]
    given = dict(Counter(map(label_of, texts)))
    for name, kept in (("old", {}), ("new", {"best_scores": [0] * 18 + [119, 1]})):
        details = {"targets": {"intent": {"validation": {"rows": 120, "given": given} | kept}}}
        with writing(shop.engine) as connection:
            connection.execute(
                insert(TrainingRow).values(
                    id=f"train_{name}",
                    name=name,
                    state="succeeded",
                    method="embedding",
                    dataset_id="d",
                    options={},
                    details=details,
                )
            )
        shop.model(name, SCHEMA, training_id=f"train_{name}")
        source = tmp_path / f"{name}.jsonl"
        source.write_text("".join(json.dumps({"text": f"{text} new"}) + "\n" for text in texts))
        batch_id = submit_batch(shop.engine, shop.sender, source=str(source), model=name)
        shop.run(batch_id)
        said = notes(gather_report(shop.engine, batch_id))
        assert "No drift: the labels are spread as in the validation split" in said
        assert (f"labelmill evaluate {name}@1 --split validation" in said) == (name == "old")
        assert ("the model is as sure of these texts" in said) == (name == "new")


def test_rows_that_a_threshold_lets_abstain_are_no_drift(shop: Workshop, tmp_path: Path) -> None:
    unsure = [f"unsure {number} {'x' * (number % 4)}" for number in range(400)]
    texts = [text if label_of(text) == "alpha" else text.replace("unsure", "surely") for text in unsure]
    rows = [{"text": text, "labels": {"intent": label_of(text)}} for text in texts]
    shop.model("shy", SCHEMA, dataset_id=shop.dataset("shy", SCHEMA, validation=rows))
    shop.run(submit_evaluation(shop.engine, shop.sender, model="shy", dataset="shy", split="validation"))
    source = tmp_path / "alike.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in (*texts, *texts[:60])))
    batch_id = submit_batch(shop.engine, shop.sender, source=str(source), model="shy", thresholds={"*": 0.5})
    done = shop.run(batch_id)
    assert done["rows"]["abstained"] > 80
    report = gather_report(shop.engine, batch_id)
    assert "No drift" in notes(report)
    before, now = next(row[1:] for row in grid(report, "Labels that moved most") if row[0] == "alpha")
    assert float(now[:-1]) == pytest.approx(float(before[:-1]), abs=3)


def test_scores_at_a_temperature_are_compared_with_those_of_validation_at_the_same(
    shop: Workshop, tmp_path: Path
) -> None:
    kinds = ("wrong", "right", "wrong", "right", "unsure")
    texts = [f"{kinds[number % 5]} {number} {'x' * (number % 4)}" for number in range(300)]
    rows = [{"text": text, "labels": {"intent": label_of(text)}} for text in texts]
    shop.model("cooled", SCHEMA, dataset_id=shop.dataset("cooled", SCHEMA, validation=rows, test=rows[:9]))
    shop.run(submit_evaluation(shop.engine, shop.sender, model="cooled", dataset="cooled", split="validation"))
    shop.run(submit_evaluation(shop.engine, shop.sender, model="cooled", dataset="cooled", calibrate=True))
    for name, wanted in (("alike", texts), ("unsure", [f"unsure {text}" for text in texts])):
        source = tmp_path / f"{name}.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in wanted))
        batch_id = submit_batch(shop.engine, shop.sender, source=str(source), model="cooled")
        shop.run(batch_id)
        said = notes(gather_report(shop.engine, batch_id))
        assert "best scores p =" in said
        assert ("No drift" in said) == (name == "alike"), said
        assert ("less sure of these texts than of the validation split" in said) == (name == "unsure"), said


def test_a_dataset_shows_its_splits_and_what_leaks(shop: Workshop) -> None:
    with writing(shop.engine) as connection:
        dataset_id = connection.execute(DatasetRow.__table__.select()).mappings().one()["id"]
    report = gather_report(shop.engine, dataset_id)
    assert (known(report)["fingerprint"], known(report)["rows dropped"]) == ("print of small", 7)
    assert figure(report, "intent-labels").series["validation"] == [0.25] * 4
    assert "Labels without any row in train" in notes(report)
    assert "Texts of one split stand in another" in notes(report)
    assert "the same text, but for case, spaces and punctuation, among 3 of train, 20 of test" in notes(report)
    assert grid(report, "Most alike")[0][3:] == ("Play jazz", "play jazz!")
    assert page_of(report).count("<svg") == 1


def test_a_training_shows_its_losses_cost_and_dataset(shop: Workshop) -> None:
    with writing(shop.engine) as connection:
        dataset_id = connection.execute(DatasetRow.__table__.select()).mappings().one()["id"]
        steps = [{"step": step, "train_loss": 1 / step, "valid_loss": None} for step in (10, 20)]
        connection.execute(
            insert(TrainingRow).values(
                id="train_1",
                state="running",
                name="m",
                method="factory",
                dataset_id=dataset_id,
                options={},
                checkpoints=steps,
                estimate={"amount": 4.0, "currency": "EUR"},
            )
        )
    report = gather_report(shop.engine, "train_1")
    assert figure(report, "loss").series == {"train": [(10, 0.1), (20, 0.05)]}
    assert (known(report)["estimate"], known(report)["fingerprint"]) == ("4 EUR", "print of small")
    assert "It is running" in notes(report)


@pytest.mark.parametrize(
    ("table", "state", "words"),
    [
        (EvaluationRow, "queued", "It is queued"),
        (EvaluationRow, "failed", "It failed: because"),
        (BatchRow, "submitting", "It is submitting"),
        (DatasetRow, "preparing", "It is preparing"),
    ],
)
def test_any_job_has_a_page_whatever_its_state(shop: Workshop, table: Any, state: str, words: str) -> None:
    values: dict[str, Any] = {"id": {EvaluationRow: "eval_1", BatchRow: "batch_1", DatasetRow: "prep_1"}[table]}
    values |= {"state": state, "error": "because" if state == "failed" else None}
    if table is EvaluationRow:
        values |= {"model_no": 1, "model_ref": "m", "dataset_id": "d", "dataset_ref": "d@1", "split": "test"}
    elif table is BatchRow:
        values |= {"model_no": 1, "model_ref": "m", "options": {}}
    else:
        values |= {"name": "fresh", "spec": {}}
    with writing(shop.engine) as connection:
        connection.execute(insert(table).values(values))
    report = gather_report(shop.engine, values["id"])
    assert words in notes(report)
    assert "<h1>" in page_of(report)


def test_a_job_that_is_not_there_has_none(shop: Workshop) -> None:
    with pytest.raises(NotFound):
        gather_report(shop.engine, "batch_unknown")


def test_a_model_that_is_no_better_than_the_most_frequent_label_is_said_to_be(shop: Workshop) -> None:
    text = next(f"wrong {'x' * n}" for n in range(4) if label_of(f"wrong {'x' * n}") == "alpha")
    rows = [{"text": f"{text}{' ' * 4 * n}{n % 2}"[:40], "labels": {"intent": "alpha"}} for n in range(8)]
    shop.dataset("sure", SCHEMA, test=rows)
    job_id = submit_evaluation(shop.engine, shop.sender, model="m", dataset="sure")
    shop.run(job_id)
    assert "alpha, would be right in 100.0%: the model is not surely better than that" in notes(
        gather_report(shop.engine, job_id)
    )


def test_a_page_of_a_multi_label_target_tells_what_was_found(shop: Workshop) -> None:
    schema = [{"name": "intent", "labels": sorted(LABELS), "multi": True}]
    shop.model("several", schema)
    texts = [f"text {number}" for number in range(20)]
    rows = [{"text": text, "labels": {"intent": [label_of(text), *LABELS[:1]]}} for text in texts]
    shop.dataset("several", schema, test=rows)
    job_id = submit_evaluation(shop.engine, shop.sender, model="several", dataset="several")
    found = shop.run(job_id)["metrics"]["intent"]
    hits = sum(cell["true_positive"] for cell in found["confusion"].values())
    there = sum(len(set(row["labels"]["intent"])) for row in rows)
    said = notes(gather_report(shop.engine, job_id))
    assert f"Of the labels given {hits / 20:.1%} are right, of the labels there {hits / there:.1%} were found" in said


def test_a_multi_label_model_that_is_no_better_than_every_label_is_worth_nothing(
    shop: Workshop, mistral: StrictMistral
) -> None:
    schema = [{"name": "intent", "labels": sorted(LABELS), "multi": True}]
    shop.model("several", schema)
    texts = [f"text {number}" for number in range(40)]
    shop.dataset("several", schema, test=[{"text": text, "labels": {"intent": [label_of(text)]}} for text in texts])
    job_id = submit_evaluation(shop.engine, shop.sender, model="several", dataset="several")
    good = shop.run(job_id)["metrics"]["intent"]
    assert good["labels_per_row"] == {"given": 1.0, "true": 1.0}
    assert good["micro_f1_every_label"] == pytest.approx(2 * 40 / (40 + 4 * 40))
    assert "giving every label to every row would reach 0.400." in notes(gather_report(shop.engine, job_id))
    mistral.faults[:] = [lambda texts, body: ok([{"intent": {"scores": dict.fromkeys(LABELS, 0.9)}} for _ in texts])]
    worthless = submit_evaluation(shop.engine, shop.sender, model="several", dataset="several")
    assert shop.run(worthless)["metrics"]["intent"]["labels_per_row"]["given"] == 4.0
    said = notes(gather_report(shop.engine, worthless))
    assert "It gives 4.0 labels a row; the rows have 1.0" in said
    assert "would reach 0.400: the model is worth nothing" in said
