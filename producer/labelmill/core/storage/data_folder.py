"""The data folder: the files of datasets, sources and models, which producers and workers share.

SQL stores references: paths relative to the data folder, with `/` between names, so that every host may mount it at
another path. A reference comes from a table that other users can write to, so it is opened only if it lies in the
folder of its kind: `datasets/<id>/`, `sources/<job>/` or `models/`.
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

_SOURCE = "data-folder:"  #: Distinguishes a reference from a path that a user wrote.
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
        """Change the owner of what root wrote at `path` to the data folder's owner, so that workers of that user can
        read it. Does nothing for other users. Raises OSError."""
        owner = self.root.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            return
        above = [folder for folder in path.parents if folder.is_relative_to(self.root) and folder != self.root]
        for written in (*above, path, *path.rglob("*")):
            os.chown(written, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def reference(self, path: Path) -> str:
        """The reference that SQL stores for a file that was written here."""
        return path.relative_to(self.root).as_posix()

    def source(self, path: Path) -> str:
        """The source of a batch that classifies a split; see `local_source`."""
        return f"{_SOURCE}{path.relative_to(self.root.resolve()).as_posix()}"

    def file(self, reference: str, folder: str) -> Path:
        """The path of the file that a reference names, which must be in `folder`. The file may be missing.

        Raises InvalidInput when the path lies elsewhere after links are resolved, or is not a regular file.
        """
        parent = self.root.resolve() / folder
        # TypeError: not a string; the others: a loop of links, a NUL byte, a name that is too long
        with contextlib.suppress(TypeError, OSError, RuntimeError, ValueError):
            path = (self.root / reference).resolve()
            if path != parent and path.is_relative_to(parent) and _is_file_or_missing(path):
                return path
        raise InvalidInput(
            f"{str(reference)[:_SHOWN_CHARS]!r} is not a file inside the data folder's {folder}/, so it is not opened"
        )


def _is_file_or_missing(path: Path) -> bool:
    """Raises OSError for a path that cannot be read, such as a loop of links, which Python 3.13's `resolve` accepts."""
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
    """References as paths on this host, for display. Opens nothing."""
    root = data_dir.rstrip("/") if "://" in data_dir else str(Path(data_dir).absolute())
    return {name: f"{root}/{reference}" for name, reference in references.items()}
