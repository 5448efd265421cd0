"""What lies in a bucket, asked for page by page: nothing holds more names than match.

`s3fs` lists whole folders into memory, also those of which a pattern wants few.
"""

from __future__ import annotations

import glob
import importlib
import re
from collections.abc import Iterator
from typing import Any, Protocol

from labelmill.contracts.errors import InvalidInput


class CallS3(Protocol):
    """A call of S3's API about one bucket."""

    def __call__(self, method: str, **arguments: Any) -> dict[str, Any]: ...


def pages(call: CallS3, prefix: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """The answers that together list the objects whose keys begin with `prefix`."""
    following: dict[str, str] = {}
    while True:
        page = call("list_objects_v2", Prefix=prefix, **arguments, **following)
        yield page
        if not page.get("IsTruncated"):
            return
        following = {"ContinuationToken": page["NextContinuationToken"]}


def matching_keys(call: CallS3, pattern: str) -> Iterator[str]:
    """The keys that match a pattern, as fsspec understands it, without those that end in `/`: they stand for folders.
    Raises InvalidInput."""
    parts = pattern.split("/")
    plain = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    folder = "".join(f"{part}/" for part in parts[:plain])
    return _below(call, folder, parts[plain:])


def _below(call: CallS3, folder: str, parts: list[str]) -> Iterator[str]:
    """The keys in a folder, or its folders, that match the rest of a pattern."""
    part, *rest = parts
    prefix = folder + re.split(r"[*?\[]", part, maxsplit=1)[0]
    if "**" in part:
        matches = _matcher("/".join(parts))
        for page in pages(call, prefix):
            yield from (key for key in _keys(page) if matches(key[len(folder) :]))
        return
    matches = _matcher(part)
    for page in pages(call, prefix, Delimiter="/"):
        if not rest:
            yield from (key for key in _keys(page) if matches(key[len(folder) :]))
            continue
        for found in page.get("CommonPrefixes", ()):
            name = str(found["Prefix"])[len(folder) : -1]
            if matches(name):
                yield from _below(call, f"{folder}{name}/", rest)


def _keys(page: dict[str, Any]) -> Iterator[str]:
    return (str(found["Key"]) for found in page.get("Contents", ()) if not found["Key"].endswith("/"))


def _matcher(pattern: str) -> Any:
    translate = importlib.import_module("fsspec.utils").glob_translate
    try:
        return re.compile(translate(pattern)).match
    except ValueError as error:
        raise InvalidInput("in a pattern ** stands for folders, alone between two /, as in **/*.jsonl") from error
