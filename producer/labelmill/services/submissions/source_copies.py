"""Copies of the files of a preparation in the storage, where workers can read them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from labelmill.contracts.errors import InvalidInput, Permanent
from labelmill.contracts.specs import FileFormat
from labelmill.core.readers import PythonRows, Source
from labelmill.core.readers.bad_rows import value_as_text
from labelmill.core.readers.python_rows.base import plain_value
from labelmill.core.stopping import require_caller
from labelmill.core.storage.base import NewFolder, ReadableFile, Storage
from labelmill.core.storage.references import source_folder

COPY_FORMAT = FileFormat(kind="jsonl")  #: In which a program's rows are written.
_OF_A_STREAM, _OF_ROWS = "piped", "rows.jsonl"  #: The names of the copies of a stream, and of a program's rows.
#: Dates as in files: not in ISO form.
_LINE_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
_BLOCK_BYTES = 1 << 20
_OF_ADDRESSES = "?#:"  #: Signs that mean something in the address of an object.
_NAME_CHARS = 100  #: Of a copy; the suffix is at the end.


@dataclass(frozen=True)
class Copies:
    """`references` to the copies; `digest`: of the content of all of them, in their order."""

    references: tuple[str, ...] = ()
    digest: str = hashlib.blake2b(digest_size=16).hexdigest()


def copy_into_storage(
    sources: Sequence[Source], storage: Storage, job_id: str, check: Callable[[Source], None]
) -> Copies:
    """Copy `sources`, all or none.

    `check` is told of each before it is copied, and of one that can be read but once when it is. Raises what it
    raises; Permanent when the storage cannot be written.
    """
    for source in sources:
        if isinstance(source.input, ReadableFile):
            check(source)
    storage.prepare()
    names = [_name_of_copy(source) for source in sources]
    if len(set(names)) < len(names):
        names = [f"{number:04}-{name}" for number, name in enumerate(names)]
    content = hashlib.blake2b(digest_size=16)
    with _faults_of_copying(storage), storage.new_folder(source_folder(job_id)) as folder:
        for source, name in zip(sources, names, strict=True):
            content.update(_copy(source, folder, name, check))
        require_caller()
    return Copies(tuple(folder.reference(name) for name in names), content.hexdigest())


def _name_of_copy(source: Source) -> str:
    """The name of the original, in characters that every storage keeps."""
    if not isinstance(source.input, ReadableFile):
        return _OF_A_STREAM
    name = source.input.name[-_NAME_CHARS:]
    return "".join(sign if sign.isprintable() and sign not in _OF_ADDRESSES else "_" for sign in name)


def copy_rows_into_storage(
    rows: PythonRows, columns: Sequence[str] | None, storage: Storage, job_id: str, check: Callable[[Source], None]
) -> Copies:
    """Write a program's rows, with these columns or all, as a file in `COPY_FORMAT`, as they come.

    `check` is told of the file. Raises what it raises, and what the rows raise; InvalidInput where there are none;
    Permanent when the storage cannot be written.
    """
    storage.prepare()
    content = hashlib.blake2b(digest_size=16)
    with _faults_of_copying(storage), storage.new_folder(source_folder(job_id)) as folder:
        is_empty = True
        with folder.writing(_OF_ROWS) as copy:
            for row in rows.rows(columns):
                line = _line(row)
                content.update(line)
                copy.write(line)
                is_empty = False
        if is_empty:
            raise InvalidInput(f"{rows.name} holds no rows", field="source")
        check(Source(folder.file(_OF_ROWS), rows.name, COPY_FORMAT))
        require_caller()
    return Copies((folder.reference(_OF_ROWS),), content.hexdigest())


def _line(row: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, _as_json, _LINE_OPTIONS)
    except TypeError:
        # a text that is not valid Unicode, or a number of more than 64 bits: the worker reads it as it does in a file
        return json.dumps(row, default=_as_json).encode() + b"\n"


def _as_json(value: Any) -> Any:
    plain = plain_value(value)
    if plain is not value:
        return plain
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet | Sequence) and not isinstance(value, bytes | bytearray):
        return list(value)
    text = value_as_text(value)
    return {} if text is None else text  # no text: the worker treats the row as it does one of a file that has none


@contextlib.contextmanager
def _faults_of_copying(storage: Storage) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        root = storage.shown("").rstrip("/")
        raise Permanent(f"the source could not be copied into {root}: {error.strerror or error}") from error


def _copy(source: Source, folder: NewFolder, name: str, check: Callable[[Source], None]) -> bytes:
    """The digest of what was copied."""
    if isinstance(source.input, ReadableFile):
        with source.input.open("rb") as original, folder.writing(name) as copy:
            return _copy_blocks(original, copy)
    with folder.writing(name) as copy:
        digest = _copy_blocks(source.input, copy)
    source.close()
    check(Source(folder.file(name), source.name, source.format))
    return digest


def _copy_blocks(original: BinaryIO, copy: BinaryIO) -> bytes:
    content = hashlib.blake2b()
    while block := original.read(_BLOCK_BYTES):
        require_caller()
        content.update(block)
        copy.write(block)
    return content.digest()
