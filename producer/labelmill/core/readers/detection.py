"""Which format an input has: by its options, its name and its first bytes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import orjson

from labelmill.contracts.bounds import plain, shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.specs import FileFormat, ReadOptions
from labelmill.core.readers.bad_rows import UTF_8
from labelmill.core.readers.delimiters import find_delimiter
from labelmill.core.readers.encodings import as_utf8, encoding_by_mark, known_encoding
from labelmill.core.readers.files import (
    Input,
    Source,
    display_name,
    faults_of_reading,
    is_pipe,
    unpacked,
    with_start,
)

Kind = Literal["jsonl", "csv", "parquet"]

_SAMPLE_BYTES = 1 << 16
_BY_SUFFIX: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}
_ONE_OBJECT_A_LINE = "write one object on each line (JSONL), such as with: jq -c"
_LINES = 100  #: Among which one that is an object shows that the file has one on each line.
_NOTHING_SAID = ReadOptions()
_OBJECT_LINE = re.compile(r"\s*\{.*\}\s*")


def read_options(encoding: str | None, delimiter: str | None, quoting: str | None) -> ReadOptions:
    """The options as users write them: the delimiter is a character, or `tab`. Raises InvalidInput."""
    if encoding is not None:
        encoding = known_encoding(encoding)
    if delimiter is not None:
        delimiter = _DELIMITERS.get(delimiter.lower(), delimiter)
        if len(delimiter) != 1 or delimiter in '"\r\n\x00':
            raise InvalidInput(
                f"{named('delimiter', shown(delimiter))} is not one character, such as ';', or the word tab"
            )
    if quoting not in (None, "none", "standard"):
        raise InvalidInput(f"{named('quoting')} is none or standard, not {shown(str(quoting))}")
    return ReadOptions(encoding=encoding, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]


def detect_sources(
    inputs: Iterable[Input], options: ReadOptions = _NOTHING_SAID, columns: Sequence[str] = ()
) -> list[Source]:
    """Each input with its format. A pipe is opened. `columns`, which will be asked for, help to know a header.

    Raises InvalidInput for what cannot be opened, is in no known format, or for which an option has no meaning.
    """
    sources = [_detect(one, options, columns) for one in inputs]
    kinds = {source.format.kind for source in sources}
    if (options.delimiter or options.quoting) and sources and "csv" not in kinds:
        field = "delimiter" if options.delimiter else "quoting"
        raise InvalidInput(f"{named(field)} is for CSV; {sources[0].name} is {_title(sources[0].format.kind)}")
    if options.encoding and kinds == {"parquet"}:
        raise InvalidInput(f"{named('encoding')} is for CSV and JSONL; {sources[0].name} is Parquet")
    return sources


def known_sources(files: Sequence[Path], formats: Sequence[FileFormat], options: ReadOptions) -> list[Source]:
    """Files in the formats that were recorded: one for each, or one for all. Raises InvalidInput where they do not
    match; where none were recorded, formats are found out."""
    if not formats:
        return detect_sources(files, options)
    if len(formats) not in (1, len(files)):
        raise InvalidInput(f"there are {len(files)} files where there were {len(formats)}")
    each = formats if len(formats) > 1 else [formats[0]] * len(files)
    return [Source(file, display_name(file), form) for file, form in zip(files, each, strict=True)]


def formats_of(sources: Sequence[Source]) -> tuple[FileFormat, ...]:
    """What to record of the sources: one format for each, or one for all."""
    formats = tuple(source.format for source in sources)
    return formats[:1] if len(set(formats)) == 1 else formats


def _detect(given: Input, options: ReadOptions, columns: Sequence[str]) -> Source:
    name = display_name(given)
    with faults_of_reading(name if isinstance(given, Path) and given.exists() else plain(str(given))):
        if isinstance(given, Path) and not is_pipe(given):
            with given.open("rb") as file:
                start, _ = with_start(unpacked(file), _SAMPLE_BYTES)
            return Source(given, name, _format_of(given, name, start, options, columns))
        raw: BinaryIO = given.open("rb") if isinstance(given, Path) else given
        start, stream = with_start(unpacked(raw), _SAMPLE_BYTES)
        opened = raw if isinstance(given, Path) else None
        return Source(stream, name, _format_of(None, name, start, options, columns), opened)


def _format_of(path: Path | None, name: str, start: bytes, options: ReadOptions, columns: Sequence[str]) -> FileFormat:
    suffix = _suffix_of(path) if path else ""
    kind = _BY_SUFFIX.get(suffix)
    if kind == "parquet" or (kind is None and start.startswith(b"PAR1")):
        return FileFormat(kind="parquet")
    encoding = options.encoding or encoding_by_mark(start)
    text = as_utf8(io.BytesIO(start), encoding).read().decode("utf-8", "replace").removeprefix("\ufeff")
    kind = kind or _kind_of_text(text, name, is_named=path is not None, options=options)
    if "\x00" in text[:4] and encoding == UTF_8:
        said = named("encoding", "utf-16-le")
        raise InvalidInput(f"{name} is not UTF-8 text: if it is UTF-16 without a mark, say {said}")
    if kind == "jsonl":
        _refuse_other_json(text, name)
        return FileFormat(kind="jsonl", encoding=encoding)
    if len(start) == _SAMPLE_BYTES:  # the last line may be cut
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    lines = list(io.StringIO(text, newline=""))
    delimiter = options.delimiter or find_delimiter(lines, columns, options.quoting, prefers_tab=suffix == ".tsv")
    quoting = options.quoting or ("line" if delimiter == "\t" else "standard")
    return FileFormat(kind="csv", encoding=encoding, delimiter=delimiter, quoting=quoting)


def _suffix_of(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _kind_of_text(text: str, name: str, *, is_named: bool, options: ReadOptions) -> Kind:
    """The kind of a file whose name says nothing, or of a stream."""
    if text.lstrip()[:1] in ("{", "["):
        return "jsonl"
    if options.delimiter or options.quoting:
        return "csv"
    if is_named:
        if not text:
            raise InvalidInput(f"{name} is empty")
        raise InvalidInput(f"{name} is in no format known here: write .jsonl, .csv or .parquet (also .gz)")
    lines = text.splitlines()
    objects = sum(bool(_OBJECT_LINE.fullmatch(line)) for line in lines)
    # a first line that is broken, or has no end, makes no CSV of it
    return "jsonl" if len(lines) < 2 or 2 * objects > len(lines) else "csv"


def _refuse_other_json(text: str, name: str) -> None:
    """Raise InvalidInput for JSON that is not in lines."""
    text = text.lstrip()
    first, _, rest = text.partition("\n")
    if text.startswith("["):
        raise InvalidInput(f"{name} holds a JSON array; {_ONE_OBJECT_A_LINE} '.[]'")
    if not first.startswith("{"):
        return
    try:
        orjson.loads(first)
    except ValueError:
        is_begun = first.strip() == "{" and rest.lstrip()[:1] == '"'
        if (is_begun or _spans_lines(text)) and not any(map(_is_object, rest.splitlines()[:_LINES])):
            raise InvalidInput(f"{name} holds objects of several lines each; {_ONE_OBJECT_A_LINE} .") from None


def _is_object(line: str) -> bool:
    try:
        return type(orjson.loads(line)) is dict
    except ValueError:
        return False


def _spans_lines(text: str) -> bool:
    """Whether a whole object begins on the first line and ends on a later one."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return "\n" in text[:end]


def _title(kind: str) -> str:
    return {"jsonl": "JSONL", "csv": "CSV", "parquet": "Parquet"}[kind]
