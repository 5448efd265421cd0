"""JSON lines: one object a line, UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from labelmill.core.readers.bad_rows import UTF_8, BadRow, OnBadRow, encoding_remedy, kind_of_value
from labelmill.core.readers.whole_lines import TOO_LONG, whole_lines

LONG_LINE = f"the line is {TOO_LONG}; write one JSON object on each line"
_BEYOND_64_BITS = 2.0**64


def read_jsonl(stream: BinaryIO, name: str, on_bad_row: OnBadRow) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each object with its line number; other lines go to `on_bad_row`."""
    number = 0
    for block in whole_lines(stream):
        if block is None:
            number += 1
            on_bad_row(BadRow(name, number, LONG_LINE))
            continue
        for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), start=number + 1):  # noqa: B020 - it counts on
            if line and not line.isspace():
                yield from read_jsonl_line(line, number, name, on_bad_row)


def read_jsonl_line(line: bytes, number: int, name: str, on_bad_row: OnBadRow) -> Iterator[tuple[int, dict[str, Any]]]:
    """The object on one line with its number, or nothing when it went to `on_bad_row`."""
    try:
        value = orjson.loads(line)
    except ValueError as error:
        on_bad_row(_broken_row(name, number, line, error))
        return
    if type(value) is dict:
        if any(type(number_value) is float and abs(number_value) >= _BEYOND_64_BITS for number_value in value.values()):
            try:
                value = json.loads(line)  # orjson rounds whole numbers of more than 64 bits, and an id may be one
            except ValueError:  # Python reads no number of more than 4,300 digits
                on_bad_row(BadRow(name, number, "a number has too many digits"))
                return
        yield number, value
    else:
        on_bad_row(BadRow(name, number, f"the line is {kind_of_value(value)}, not an object"))


def _broken_row(name: str, number: int, line: bytes, error: ValueError) -> BadRow:
    try:
        line.decode()
    except UnicodeDecodeError as fault:
        return BadRow(name, number, f"not UTF-8 at byte {fault.start + 1}", remedy=encoding_remedy(UTF_8))
    if (constant := _constant_that_is_no_json(line)) is not None:
        return BadRow(name, number, f"broken JSON: {constant} is not a value of JSON; write null")
    return BadRow(name, number, f"broken JSON: {str(error).split(': line ')[0]}")


def _constant_that_is_no_json(line: bytes) -> str | None:
    """NaN, Infinity or -Infinity, where nothing else is wrong with the line: Python's own writer makes such lines."""
    if b"NaN" not in line and b"Infinity" not in line:
        return None
    constants: list[str] = []
    try:
        json.loads(line, parse_constant=constants.append)
    except (ValueError, RecursionError):
        return None
    return constants[0] if constants else None
