"""A model's own file: a plain zip of one JSON document and NumPy arrays, without pickle.

Its SHA-256 stands in the database and is checked whenever it is read: a file that was changed is refused.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from labelmill.contracts.errors import Permanent, WorkerUnable
from labelmill.core.storage.base import ReadableFile, Storage, StoredFile

Arrays = dict[str, NDArray[Any]]

FORMAT = 1  #: Of the file. A worker refuses what was written in a later one.

_DOCUMENT = "model.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model makes the same bytes


class ArtifactRefused(Permanent):
    """A model's own file is missing, was changed or cannot be read."""

    code = "model_file_refused"


class ArtifactRefusedHere(ArtifactRefused, WorkerUnable):
    """What this worker finds in its data folder, or knows how to read, is not enough: another one may be better off."""


def save_artifact(
    storage: Storage, reference: str, document: dict[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> str:
    """Write the file, whole or not at all. Returns its SHA-256. Raises Permanent when the disk refuses."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(_DOCUMENT, _EPOCH), orjson.dumps({"format": FORMAT} | document))
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), content.getvalue())
    data = buffer.getvalue()
    try:
        with storage.writing(reference) as file:
            file.write(data)
    except OSError as error:
        raise Permanent(f"the model's file cannot be written to the data folder: {error.strerror}") from error
    return hashlib.sha256(data).hexdigest()


def load_artifact(stored: ReadableFile, sha256: str, model: str, kind: str) -> tuple[dict[str, Any], Arrays]:
    """The document and the arrays of a file of this `kind`. `model` is how a refusal names it. Raises
    ArtifactRefused."""
    where = shown_file(stored)
    try:
        with stored.open("rb") as file:
            data = file.read()
    except OSError as error:
        raise ArtifactRefusedHere(
            f"the file of model {model} cannot be read: {error.strerror} ({where}): put it back, or train it again"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ArtifactRefusedHere(
            f"the file of model {model} is not the one that was trained ({where}): put that one back, or train it again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            document = orjson.loads(archive.read(_DOCUMENT))
            if document.get("format", FORMAT) > FORMAT:
                raise ArtifactRefusedHere(
                    f"the file of model {model} was written by a later Labelmill ({where}): upgrade this worker"
                )
            if document["kind"] != kind:
                raise ArtifactRefused(f"the file of model {model} is another model's ({where}): put its own back")
            names = [name for name in archive.namelist() if name != _DOCUMENT]
            arrays = {
                name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name)), allow_pickle=False) for name in names
            }
            return document, arrays
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactRefused(f"the file of model {model} cannot be understood ({where}): train it again") from error


def shown_file(file: ReadableFile) -> str:
    """How errors, which SQL keeps, name a model's file: every host mounts the data folder at a path of its own."""
    return f"{file.reference if isinstance(file, StoredFile) else file.name} in the data folder"
