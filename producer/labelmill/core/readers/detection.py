"""Which format an input has: by its options, its name and its first bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from labelmill.contracts.bounds import plain, shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.specs import FileFormat, InputKind, ReadOptions
from labelmill.core.readers.bad_rows import UTF_8
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
from labelmill.core.readers.formats import FORMATS, Sample, format_by_magic, format_by_suffix
from labelmill.core.storage.base import ReadableFile

_SAMPLE_BYTES = 1 << 16
_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}
_NO_OPTIONS = ReadOptions()
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


def refuse_file_options(encoding: str | None, delimiter: str | None, quoting: str | None) -> None:
    """Raise InvalidInput for options of files where rows do not come from one."""
    for field, value in (("encoding", encoding), ("delimiter", delimiter), ("quoting", quoting)):
        if value is not None:
            raise InvalidInput(f"{named(field)} is for files, and these rows come from the program")


def detect_sources(
    inputs: Iterable[Input], options: ReadOptions = _NO_OPTIONS, columns: Sequence[str] = ()
) -> list[Source]:
    """Each input with its format. A pipe is opened. `columns`: those that will be read; they help to find a header.

    Raises InvalidInput for an input that cannot be opened or has no known format, or for an option that does not apply.
    """
    sources = [_detect(source_input, options, columns) for source_input in inputs]
    formats = [FORMATS[source.format.kind] for source in sources]
    if (options.delimiter or options.quoting) and sources and not any(form.has_delimiter for form in formats):
        field = "delimiter" if options.delimiter else "quoting"
        raise InvalidInput(f"{named(field)} is for CSV; {sources[0].name} is {formats[0].title}")
    if options.encoding and sources and all(form.magic for form in formats):
        raise InvalidInput(f"{named('encoding')} is for CSV and JSONL; {sources[0].name} is {formats[0].title}")
    return sources


def known_sources(files: Sequence[ReadableFile], formats: Sequence[FileFormat], options: ReadOptions) -> list[Source]:
    """Files in the formats that were recorded: one for each, or one for all. Raises InvalidInput where their numbers
    differ; where none were recorded, formats are detected."""
    if not formats:
        return detect_sources(files, options)
    if len(formats) not in (1, len(files)):
        raise InvalidInput(f"there are {len(files)} files where there were {len(formats)}")
    each = formats if len(formats) > 1 else [formats[0]] * len(files)
    return [Source(file, display_name(file), form) for file, form in zip(files, each, strict=True)]


def formats_of(sources: Sequence[Source]) -> tuple[FileFormat, ...]:
    """The formats to record: one for each source, or one for all."""
    formats = tuple(source.format for source in sources)
    return formats[:1] if len(set(formats)) == 1 else formats


def _detect(source_input: Input, options: ReadOptions, columns: Sequence[str]) -> Source:
    name = display_name(source_input)
    with faults_of_reading(
        plain(str(source_input)) if isinstance(source_input, Path) and not source_input.exists() else name
    ):
        if isinstance(source_input, ReadableFile) and not is_pipe(source_input):
            with source_input.open("rb") as file:
                start, _ = with_start(unpacked(file), _SAMPLE_BYTES)
            return Source(source_input, name, _format_of(source_input, name, start, options, columns))
        raw: BinaryIO = source_input.open("rb") if isinstance(source_input, ReadableFile) else source_input
        start, stream = with_start(unpacked(raw), _SAMPLE_BYTES)
        opened = raw if isinstance(source_input, ReadableFile) else None
        return Source(stream, name, _format_of(None, name, start, options, columns), opened)


def _format_of(
    file: ReadableFile | None, name: str, start: bytes, options: ReadOptions, columns: Sequence[str]
) -> FileFormat:
    suffix = _suffix_of(file.name) if file is not None else ""
    form = format_by_suffix(suffix)
    binary = form if form and form.magic else (None if form else format_by_magic(start))
    if binary is not None:
        return FileFormat(kind=binary.kind)
    encoding = options.encoding or encoding_by_mark(start)
    text = as_utf8(io.BytesIO(start), encoding).read().decode("utf-8", "replace").removeprefix("\ufeff")
    form = form or FORMATS[_kind_of_text(text, name, is_named=file is not None, options=options)]
    if "\x00" in text[:4] and encoding == UTF_8:
        option = named("encoding", "utf-16-le")
        raise InvalidInput(f"{name} is not UTF-8 text: if it is UTF-16 without a mark, say {option}")
    return form.describe(Sample(name, suffix, text, encoding, len(start) == _SAMPLE_BYTES, options, columns))


def _suffix_of(name: str) -> str:
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _kind_of_text(text: str, name: str, *, is_named: bool, options: ReadOptions) -> InputKind:
    """The kind of a text file with an unknown suffix, or of a stream."""
    if text.lstrip()[:1] in ("{", "["):
        return "jsonl"
    if options.delimiter or options.quoting:
        return "csv"
    if is_named:
        if not text:
            raise InvalidInput(f"{name} is empty")
        suffixes = [form.suffixes[0] for form in FORMATS.values()]
        known = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise InvalidInput(f"{name} is in no format known here: write {known} (also .gz)")
    lines = text.splitlines()
    objects = sum(bool(_OBJECT_LINE.fullmatch(line)) for line in lines)
    # a first line that is broken or cut off does not make it CSV
    return "jsonl" if len(lines) < 2 or 2 * objects > len(lines) else "csv"
