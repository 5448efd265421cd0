"""The data folder: where the files of datasets, sources and models lie, which producers and workers share.

SQL stores references: paths relative to the data folder, with `/` between names, so that every host may mount it where
it likes. A reference comes from a table that others write to, and is opened only where it leads into the folder that it
must be in: `datasets/<id>/`, `sources/<job>/` or `models/`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.core.storage.new_files import make_private_folder

MODELS = "models"  #: The folder of models' own files.

_SOURCE = "data-folder:"  #: Before a reference where else a path stands as a user wrote it.
_SHOWN_CHARS = 200  #: Of a reference, in an error.


def dataset_folder(dataset_id: str) -> str:
    """The folder of a dataset's files."""
    return f"datasets/{dataset_id}"


def source_folder(job_id: str) -> str:
    """The folder of the copies that one preparation reads."""
    return f"sources/{job_id}"


def model_file(training_id: str) -> str:
    """The file of the model version that a training makes."""
    return f"{MODELS}/{training_id}.zip"


@dataclass(frozen=True)
class DataFolder:
    """The data folder as this process sees it; `root` is absolute."""

    root: Path

    @classmethod
    def of(cls, data_dir: str) -> DataFolder:
        """The folder that the setting names. Raises InvalidInput for a URL."""
        if "://" in data_dir:
            raise InvalidInput(
                "LABELMILL_DATA_DIR must be a folder that producer and workers share, not a URL, for now"
            )
        return cls(Path(data_dir).absolute())

    def make(self) -> None:
        """Make the folder, for its owner alone, where it is missing. Raises Permanent."""
        try:
            make_private_folder(self.root)
        except OSError as error:
            raise Permanent(f"the data folder {self.root} cannot be made: {error.strerror}") from error

    def path(self, name: str) -> Path:
        """Where one of its folders lies here, or a file that this process writes."""
        return self.root / name

    def give_to_owner(self, path: Path) -> None:
        """Let what root wrote at `path` belong to the data folder's owner, so that workers of that user can read it.
        Does nothing for other users. Raises OSError."""
        owner = self.root.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            return
        above = [folder for folder in path.parents if folder.is_relative_to(self.root) and folder != self.root]
        for one in (*above, path, *path.rglob("*")):
            os.chown(one, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def reference(self, path: Path) -> str:
        """How SQL names a file that was written here."""
        return path.relative_to(self.root).as_posix()

    def source(self, path: Path) -> str:
        """How a batch names a split that it classifies; see `local_source`."""
        return f"{_SOURCE}{path.relative_to(self.root.resolve()).as_posix()}"

    def file(self, reference: str, folder: str) -> Path:
        """Where the file lies here that a row names, which must be in `folder`. It may be missing.

        Raises InvalidInput when it lies elsewhere, links resolved, or is no regular file.
        """
        place = self.root.resolve() / folder
        # TypeError: no text at all; the others: a loop of links, a NUL byte, a name that is too long
        with contextlib.suppress(TypeError, OSError, RuntimeError, ValueError):
            path = (self.root / reference).resolve()
            if path != place and path.is_relative_to(place) and _is_file_or_missing(path):
                return path
        raise InvalidInput(
            f"{str(reference)[:_SHOWN_CHARS]!r} is not a file inside the data folder's {folder}/, so it is not opened"
        )


def _is_file_or_missing(path: Path) -> bool:
    """Raises OSError for what cannot be looked at, such as a loop of links, which Python 3.13's `resolve` lets pass."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def local_source(data_dir: str, source: str) -> str:
    """The source of a batch as a path here: a split of a dataset, or what the user wrote. Raises InvalidInput."""
    if not source.startswith(_SOURCE):
        return source
    return str(DataFolder.of(data_dir).file(source.removeprefix(_SOURCE), "datasets"))


def shown_files(data_dir: str, references: Mapping[str, str]) -> dict[str, str]:
    """References as users are shown them: where the files lie for whoever asks. Opens nothing."""
    root = data_dir.rstrip("/") if "://" in data_dir else str(Path(data_dir).absolute())
    return {name: f"{root}/{reference}" for name, reference in references.items()}
