"""How SQL names the files of datasets, sources and models: by paths relative to the storage's root, with `/` between
names, so that every host may mount the root at another path, or reach it by another address."""

from __future__ import annotations

MODELS = "models"  #: The folder of models' own files.
DATASETS = "datasets"
SOURCES = "sources"

_SOURCE = "data-folder:"  #: Distinguishes a reference from a path that a user wrote.


def dataset_folder(dataset_id: str) -> str:
    """The folder of a dataset's files."""
    return f"{DATASETS}/{dataset_id}"


def source_folder(job_id: str) -> str:
    """The folder of the copies that one preparation reads."""
    return f"{SOURCES}/{job_id}"


def model_file(training_id: str) -> str:
    """The file of the model version that a training makes."""
    return f"{MODELS}/{training_id}.zip"


def batch_source(reference: str) -> str:
    """The source of a batch that classifies a stored file."""
    return f"{_SOURCE}{reference}"


def reference_in(source: str) -> str | None:
    """The reference that the source of a batch holds; None: it is what a user wrote."""
    return source.removeprefix(_SOURCE) if source.startswith(_SOURCE) else None
