"""Where the files of a prepared dataset lie. Quotes read them too, without a worker's libraries."""

from __future__ import annotations

from labelmill.core.database.tables import DatasetRow
from labelmill.core.storage.base import Storage, StoredFile
from labelmill.core.storage.references import dataset_folder


def split_file(storage: Storage, dataset: DatasetRow, split: str) -> StoredFile | None:
    """The file of a dataset's split; None when it has none. Raises InvalidInput for one that lies
    outside of the dataset's folder."""
    reference = (dataset.files or {}).get(split)
    # a dataset that repeats another one shares its files
    return None if reference is None else storage.file(reference, dataset_folder(dataset.repeats or dataset.id))
