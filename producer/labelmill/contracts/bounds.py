"""Every rule about strings and numbers that come from outside, whatever their source.

A rule returns a few words that say what is wrong, or None. The caller decides what follows: an option is refused, a
row is counted as bad, an answer of Mistral's is malformed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named

MAX_NAME_CHARS = 200  #: Of names, keys and Mistral's ids: what their columns take.
MAX_LABEL_CHARS = 1_000
MAX_OPTION_CHARS = 10_000  #: Of any other string: a note, a path, what a label means.
MAX_METADATA = 16  #: Names of one job's metadata.
MAX_METADATA_NAME_CHARS = 64
MAX_METADATA_VALUE_CHARS = 500
MAX_VERSION = 2**31 - 1
MAX_AMOUNT = 1_000_000_000  #: Of money.
MAX_NUMBER = 2**63 - 1  #: What both databases and JSON keep.

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

#: Columns of exported results that belong to no target.
RESULT_COLUMNS = ("row", "id", "text", "error_code", "error_message")
#: A target `intent` has the columns `intent`, `intent_score` and so on.
TARGET_SUFFIXES = ("_score", "_scores", "_best")
EVERY_TARGET = "*"  #: Stands for all targets of a model in its thresholds.


def fault_of_text(text: str, max_chars: int = MAX_OPTION_CHARS) -> str | None:
    """Why no database can keep a text."""
    if len(text) > max_chars:
        return f"has {len(text):,} characters, {max_chars:,} are the most"
    if "\x00" in text:
        return "holds a NUL character"
    if not text.isascii() and _SURROGATE.search(text):
        return "is not valid Unicode"
    return None


def fault_of_name(name: str, max_chars: int = MAX_NAME_CHARS) -> str | None:
    """Why a text is not a name, a key or an id: it stands on one line."""
    if not name.strip():
        return "is empty"
    return fault_of_text(name, max_chars) or ("holds a control character" if _CONTROL.search(name) else None)


def fault_of_label(label: str) -> str | None:
    """Why a text is not a label."""
    return fault_of_text(label, MAX_LABEL_CHARS)


def fault_of_target(name: str) -> str | None:
    """Why a text is not a target's name."""
    if name in RESULT_COLUMNS:
        return "is the name of a column of the results"
    return f"stands for all targets ({EVERY_TARGET})" if name == EVERY_TARGET else fault_of_name(name)


def fault_of_targets(names: Iterable[str]) -> str | None:
    """Why these cannot be the targets of one model, as a sentence."""
    listed = list(names)
    for name in listed:
        if fault := fault_of_target(name):
            return f"the target name {shown(name)} {fault}"
    if len(set(listed)) < len(listed):
        return "two targets have the same name"
    for name in listed:
        for suffix in TARGET_SUFFIXES:
            if name + suffix in listed:
                return f"the target name {shown(name + suffix)} is a column of the results of the target {shown(name)}"
    return None


def fault_of_value(value: Any) -> str | None:
    """Why an option's value cannot be kept: a string, a number, or anything made of them."""
    if isinstance(value, str):
        return fault_of_text(value)
    if isinstance(value, int):
        return None if abs(value) <= MAX_NUMBER else "is too large a number"
    if isinstance(value, Mapping):
        return next(filter(None, map(fault_of_value, (*value, *value.values()))), None)
    if isinstance(value, (list, tuple, set, frozenset)):
        return next(filter(None, map(fault_of_value, value)), None)
    return None


def check_name(what: str, name: str, max_chars: int = MAX_NAME_CHARS, *, field: str | None = None) -> None:
    """Raise InvalidInput, naming `what` it is, for a text that is not a name. `field`: of a request."""
    if fault := fault_of_name(name, max_chars):
        raise InvalidInput(f"{what} {shown(name)} {fault}", field=field)


def check_plain_name(kind: str, name: str) -> None:
    """Raise InvalidInput unless this can be the name of a dataset or a model (`kind`)."""
    if not _PLAIN_NAME.fullmatch(name):
        raise InvalidInput(
            f"{shown(name)} cannot be the name of a {kind}: letters, digits, '.', '_' and '-', {MAX_NAME_CHARS} at "
            "most",
            field="name",
        )


def fault_of_metadata(metadata: Mapping[Any, Any]) -> str | None:
    """Why a job cannot have this metadata: text by name."""
    if len(metadata) > MAX_METADATA:
        return f"has {len(metadata):,} names, {MAX_METADATA} are the most"
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            return f"{shown(str(name))} is not a text with a text for a name"
        if fault := fault_of_name(name, MAX_METADATA_NAME_CHARS):
            return f"has a name that {fault}: {shown(name)}"
        if "=" in name:
            return f"has a name with an equals sign: {shown(name)}"
        if fault := fault_of_text(value, MAX_METADATA_VALUE_CHARS):
            return f"{shown(name)} {fault}"
    return None


def check_limit(limit: int) -> None:
    """Raise InvalidInput for a number of entries that no list can have."""
    if not 1 <= limit <= MAX_NUMBER:
        raise InvalidInput(f"{named('limit')} is the number of entries, from 1, not {limit}")


def check_text(what: str, text: str, max_chars: int = MAX_OPTION_CHARS, *, field: str | None = None) -> None:
    """Raise InvalidInput, naming `what` it is, for a text that no database can keep. `field`: of a request."""
    if fault := fault_of_text(text, max_chars):
        raise InvalidInput(f"{what} {fault}", field=field)


def version_of(written: str) -> int | None:
    """The number of a version as a person writes it; None: not a number, or one that no version can have."""
    if not (written.isascii() and written.isdigit()):
        return None
    number = int(written[:20])
    return number if 0 < number <= MAX_VERSION and len(written) <= 20 else None


def plain(text: str) -> str:
    """A name for a message: unchanged, or quoted by `shown` when it is too long or not printable."""
    return text if text.isprintable() and len(text) <= MAX_NAME_CHARS else shown(text)


def shown(text: str) -> str:
    """A text for a message: quoted, and cut off after 60 characters."""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
