"""Rows of a dataset on the Hugging Face hub: of its own files, at one revision, and of nothing else.

A dataset's card names its files, and the card's author may name `/proc/self/environ` or `http://10.0.0.1/`. So
the card is read before the `datasets` library follows it, and what the library makes of it is looked at before it is
opened.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labelmill.contracts.errors import InvalidInput, RemoteUnavailable
from labelmill.contracts.hub_reference import split_hub_reference
from labelmill.core.readers import Row, check_columns

Decoder = Callable[[Any], Any]

_CARD, _SECOND_CARD = "README.md", ".huggingface.yaml"
_FORMATS = ("arrow", "csv", "json", "parquet", "text")  #: Readers of the `datasets` library that read rows of texts.
_SERVER_ERROR, _TOO_MANY, _REFUSED = 500, 429, (401, 403, 404)


def hub_rows(reference: str, columns: list[str] | None) -> Iterator[Row]:
    """Every row of the split `train`, or of the first one. Raises InvalidInput, and RemoteUnavailable when the hub does
    not answer."""
    repository, config = split_hub_reference(reference)
    # the library prefers a folder of that name, wherever the worker was started
    if Path(repository).exists():
        raise InvalidInput(f"hf:{repository} is the name of a folder on the worker's machine, so it is not opened")
    with _faults_of_the_hub(repository, reference):
        parts = _open(repository, config)
        # Other splits stay out of it, so that no test row was trained on
        split = "train" if "train" in parts else next(iter(parts))
        rows = parts[split]
        features = rows.features or {}
        if features and columns is not None:
            check_columns(f"hf:{reference}", features, columns)
            rows = rows.select_columns(columns)
        if features:
            rows = rows.decode(False)  # noqa: FBT003 - images and sounds name files of their own
        decoders = {name: decoder for name, kind in features.items() if (decoder := _decoder(kind))}
        for line, values in enumerate(rows, start=1):
            if line == 1 and columns is not None:
                check_columns(f"hf:{reference}", values, columns)
            for name, decoder in decoders.items():
                if values.get(name) is not None:
                    values[name] = decoder(values[name])
            yield Row(f"hf:{reference}", line, values)


def _open(repository: str, config: str | None) -> Any:
    """The dataset's splits as streams."""
    hub = importlib.import_module("huggingface_hub")
    datasets = importlib.import_module("datasets")  # takes seconds to import; untyped
    api = hub.HfApi()
    info = api.dataset_info(repository)
    files = {file.rfilename for file in info.siblings or ()}
    if _SECOND_CARD in files:
        raise InvalidInput(f"hf:{repository} names its files in {_SECOND_CARD}, which is not read")
    if _CARD in files:
        card = api.hf_hub_download(repository, _CARD, repo_type="dataset", revision=info.sha)
        check_card(repository, hub.DatasetCard.load(card, ignore_metadata_errors=False).data.to_dict())
    builder = datasets.load_dataset_builder(repository, config, revision=info.sha)
    for file in _resolved(builder.config.data_files):
        _require_own(repository, file.removeprefix(f"hf://datasets/{repository}@{info.sha}/"), file)
    if builder.info.builder_name not in _FORMATS:
        raise InvalidInput(
            f"hf:{repository} holds files of the format {builder.info.builder_name}; read are {', '.join(_FORMATS)}"
        )
    return builder.as_streaming_dataset()


def check_card(repository: str, card: dict[str, Any]) -> None:
    """Raise InvalidInput when the card of a dataset names files outside of it."""
    configs = card.get("configs")
    for config in configs if isinstance(configs, list) else [configs]:
        if isinstance(config, dict):
            for name in (*_texts(config.get("data_files")), *_texts(config.get("data_dir"))):
                _require_own(repository, name, name)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _resolved(data_files: Any) -> Iterator[str]:
    for files in (data_files or {}).values():
        yield from map(str, files)


def _require_own(repository: str, name: str, shown: str) -> None:
    """Raise InvalidInput unless `name` is a path, or a pattern of paths, within a dataset."""
    # a colon: of a URL, of a drive, or between an archive and what is in it
    if name.startswith(("/", "~")) or ":" in name or "\\" in name or ".." in name.split("/"):
        raise InvalidInput(
            f"hf:{repository} names {shown[:200]!r}, which is not one of its own files, so it is not opened"
        )


@contextlib.contextmanager
def _faults_of_the_hub(repository: str, reference: str) -> Iterator[None]:
    errors = importlib.import_module("datasets.exceptions")
    hub_errors = importlib.import_module("huggingface_hub.errors")
    yaml = importlib.import_module("yaml")
    no_answer = (hub_errors.HTTPError, ConnectionError, TimeoutError)
    refused = (errors.DatasetsError, hub_errors.EntryNotFoundError, yaml.YAMLError, OSError, ValueError)
    try:
        yield
    except (*no_answer, *refused) as error:
        status, retry_after_s = _answer_of(error)
        if isinstance(error, errors.DatasetNotFoundError) or status in _REFUSED:
            what = f"the Hugging Face hub has no dataset {repository}, or it is not public"
            raise InvalidInput(what) from error
        if status is not None and (status == _TOO_MANY or status >= _SERVER_ERROR):
            what = f"the Hugging Face hub answers with status {status} when {repository} is read"
            raise RemoteUnavailable(what, retry_after_s) from error
        if any(isinstance(one, no_answer) for one in _causes(error)):
            what = f"the Hugging Face hub cannot be reached to read {repository}"
            raise RemoteUnavailable(what) from error
        raise InvalidInput(f"hf:{reference} cannot be read: {_first_line(error)}") from error


def _answer_of(error: BaseException) -> tuple[int | None, float | None]:
    """The status of the hub's answer that led to an error, and the seconds after which to ask again."""
    for cause in _causes(error):
        if (response := getattr(cause, "response", None)) is not None:
            seconds = response.headers.get("retry-after", "")
            return response.status_code, float(seconds) if seconds.isdecimal() else None
    return None, None


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _decoder(kind: Any) -> Decoder | None:
    """Class numbers become their names."""
    inner = getattr(kind, "feature", None)
    if hasattr(kind, "int2str"):
        # -1 is how published test sets mark rows whose label is kept back
        return lambda number: kind.int2str(number) if number >= 0 else None
    if inner is not None and hasattr(inner, "int2str"):
        return lambda numbers: [inner.int2str(number) for number in numbers]
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
