"""Recoding of other encodings to UTF-8, which all readers expect."""

from __future__ import annotations

import codecs
import io
from typing import BinaryIO, cast

from labelmill.contracts.bounds import shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.core.readers.bad_rows import UTF_8

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
#: Codecs of Python that are not encodings of files.
_NOT_OF_FILES = ("idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape", "utf_7", "mbcs", "oem")
_NO_UTF_8 = "labelmill.no-utf-8"
_READ_BYTES = 1 << 19


def _mark_fault(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what cannot be decoded or encoded by a byte that is invalid in UTF-8, so that its row counts as bad."""
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101 - there is no third kind
    return b"\xff", error.end


codecs.register_error(_NO_UTF_8, _mark_fault)


def known_encoding(name: str) -> str:
    """The encoding of that name. Raises InvalidInput."""
    try:
        codec = codecs.lookup(name)
        is_text = getattr(codec, "_is_text_encoding", True) and codec.name.replace("-", "_") not in _NOT_OF_FILES
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        raise InvalidInput(
            f"{named('encoding', shown(name))} is not known; common ones are utf-8, cp1252, utf-16 and latin-1"
        )
    return UTF_8 if codec.name in ("utf-8", "utf-8-sig") else name


def encoding_by_mark(start: bytes) -> str:
    """The encoding of a file's byte order mark; UTF-8 where there is none."""
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), UTF_8)


def as_utf8(stream: BinaryIO, encoding: str) -> BinaryIO:
    """The same text in UTF-8. Bytes that are invalid in `encoding` become bytes that are invalid in UTF-8."""
    return stream if encoding == UTF_8 else cast("BinaryIO", io.BufferedReader(_Recoded(stream, encoding), _READ_BYTES))


class _Recoded(io.RawIOBase):
    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_NO_UTF_8)
        self._ready = b""
        self._is_at_end = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready and not self._is_at_end:
            raw = self._stream.read(_READ_BYTES)
            self._is_at_end = not raw
            self._ready = self._decoder.decode(raw, final=not raw).encode("utf-8", _NO_UTF_8)
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size
