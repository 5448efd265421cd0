"""Addresses of S3: `s3://bucket/prefix`, and the address of a server that is not Amazon's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_NOT_IN_PREFIX = ("?", "#", "::")  #: They mean something in URLs.
_MAX_KEY = 700  #: Bytes of a prefix; S3 takes keys of 1,024, and references follow.


@dataclass(frozen=True)
class S3Location:
    """A bucket, and the prefix of all keys in it: empty, or without a `/` at its ends."""

    bucket: str
    prefix: str

    def key(self, reference: str) -> str:
        """The key of a reference."""
        return f"{self.prefix}/{reference}" if self.prefix else reference

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"


def read_s3_location(url: str) -> S3Location:
    """The location that `s3://bucket/prefix` names. Raises ValueError, whose message does not quote the URL: it may
    hold a key."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != "s3":
        raise ValueError("it is a folder or s3://bucket/prefix")
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("it names no bucket: write s3://bucket/prefix, and keys in AWS_ACCESS_KEY_ID")
    prefix = prefix.strip("/")
    parts = prefix.split("/") if prefix else []
    is_plain = prefix.isprintable() and not any(sign in prefix for sign in _NOT_IN_PREFIX)
    if not is_plain or any(part in ("", ".", "..") for part in parts):
        raise ValueError("it has a prefix that is not plain names, without ? # or ::, with / between them")
    if len(prefix.encode()) > _MAX_KEY:
        raise ValueError(f"it has a prefix of more than {_MAX_KEY} bytes")
    return S3Location(bucket, prefix)


def read_s3_endpoint(url: str) -> str:
    """The address of an S3 server. Raises ValueError."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
        parts = urlsplit("")
    if not is_address or parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("it is not the address of a server, such as https://s3.example.com, without a user name")
    return url
