"""Rows from the Hugging Face hub, with the real `datasets` library and a hub that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError

from labelmill.contracts.errors import InvalidInput, LabelmillError, RemoteUnavailable
from labelmill.contracts.readers import BadRow
from labelmill.contracts.specs import PrepareSpec, TargetSpec
from labelmill_worker.prepare.source import source_rows


def spec(column: str = "label") -> PrepareSpec:
    return PrepareSpec(name="x", source="x", hf="owner/repo/en", targets=(TargetSpec(name="intent", column=column),))


def refuse(bad: BadRow) -> None:
    raise AssertionError(str(bad))


def stand_in(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(*arguments: Any, streaming: bool) -> Any:
        asked.append((*arguments, streaming))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def rows() -> Iterator[dict[str, Any]]:
    yield {"text": "hi", "label": 1, "noise": "x"}
    yield {"text": "no label", "label": -1, "noise": "x"}


def test_hub_rows_stream_from_train_with_class_numbers_as_names(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["a", "b"]),
            "noise": datasets.Value("string"),
        }
    )
    stream = datasets.IterableDataset.from_generator(rows, features=features)
    asked = stand_in(monkeypatch, datasets.IterableDatasetDict({"test": None, "train": stream}))
    found = list(source_rows(spec(), [], refuse))
    assert asked == [("owner/repo", "en", True)]
    assert [row.values for row in found] == [{"text": "hi", "label": "b"}, {"text": "no label", "label": None}]
    with pytest.raises(InvalidInput, match="hf:owner/repo/en has no column 'l'; it has 'text', 'label', 'noise'"):
        list(source_rows(spec("l"), [], refuse))


@pytest.mark.parametrize(("fault", "kind", "sentence"), [
    (DatasetNotFoundError("no"), InvalidInput, "has no dataset owner/repo"),
    (ConnectionError("no"), RemoteUnavailable, "cannot be reached"),
    (ValueError("BuilderConfig 'en' not found"), InvalidInput, "BuilderConfig 'en' not found"),
])  # fmt: skip
def test_faults_of_the_hub_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, kind: type[LabelmillError], sentence: str
) -> None:
    stand_in(monkeypatch, fault)
    with pytest.raises(kind, match=sentence):
        list(source_rows(spec(), [], refuse))


@pytest.mark.parametrize(
    "reference",
    [
        "../etc", "../../etc/passwd", "/etc/passwd", "etc/../passwd", "file:///etc/passwd", "https://host/name", "json",
        "./data", "owner/..", "~/x", "owner/name/../../x", "owner/name//x", "owner\\name", "s3://a/b", " a/b", "a/b ",
    ],
)  # fmt: skip
def test_a_hub_reference_is_never_a_path_or_a_url(monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    asked = stand_in(monkeypatch, {})
    hostile = spec().model_copy(update={"hf": reference})
    with pytest.raises(InvalidInput, match="no dataset of the hub"):
        list(source_rows(hostile, [], refuse))
    assert asked == []


def test_a_folder_that_is_called_like_a_dataset_is_not_opened(tmp_path: Path) -> None:
    folder = Path("owner/repo")  # in the folder where the worker was started
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"text": "secret", "label": "a"}\n')
    with pytest.raises(InvalidInput, match="a folder on the worker's machine"):
        list(source_rows(spec(), [], refuse))
