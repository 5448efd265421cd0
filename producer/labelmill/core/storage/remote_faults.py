"""Errors of fsspec, and of what it calls, as ours.

They become `StorageUnavailable`, which may pass, or `StorageRefused`, which will not. None quotes a key.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from labelmill.contracts.bounds import plain
from labelmill.contracts.errors import LabelmillError, StorageRefused, StorageUnavailable

_BAD_KEY = "{bucket} refuses the key in AWS_ACCESS_KEY_ID ({code}): set another one"
_NO_KEY = "{bucket} needs a key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NO_PROFILE = "{bucket} needs a key, and there is none ({code}): look at AWS_PROFILE"
_NO_RIGHT = "{url} may not be read or written with this key: allow it, or use another key"
_OTHER_REGION = "{bucket} lies in another region ({code}): set AWS_REGION to its own"
#: By the code of S3's answer, or by the name of the error of what asks S3. An answer to HEAD has its status alone.
_REFUSALS = {
    "NoSuchBucket": "there is no bucket {bucket}: make it, or name another one",
    "InvalidAccessKeyId": _BAD_KEY,
    "SignatureDoesNotMatch": _BAD_KEY,
    "ExpiredToken": _BAD_KEY,
    "InvalidToken": _BAD_KEY,
    "TokenRefreshRequired": _BAD_KEY,
    "NoCredentialsError": _NO_KEY,
    "PartialCredentialsError": _NO_KEY,
    "ProfileNotFound": _NO_PROFILE,
    "SSOTokenLoadError": _NO_PROFILE,
    "UnauthorizedSSOTokenError": _NO_PROFILE,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
    "PermanentRedirect": _OTHER_REGION,
    "301": _OTHER_REGION,
    "RequestTimeTooSkewed": "{bucket} refuses the time of this machine ({code}): set its clock",
    "InvalidObjectState": "{url} is archived: restore it first",
    "400": "{bucket} refuses the request (400): the key's session may have expired, or AWS_REGION be wrong",
    "AccessDenied": _NO_RIGHT,
    "403": _NO_RIGHT,
}
_NO_CONNECTION = {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ServerTimeoutError"}


class UploadAborted(StorageUnavailable):
    """An upload was ended by somebody else, or is complete already."""


@contextlib.contextmanager
def translated_errors(url: str) -> Iterator[None]:
    """Turn errors of fsspec and of what it calls into ours, and a missing file into a plain FileNotFoundError."""
    try:
        yield
    except LabelmillError:
        raise
    except Exception as error:
        # each of fsspec's file systems raises what its own library does, and there is no common base
        raise _translated(url, error) from error


def _translated(url: str, error: Exception) -> Exception:
    code, kind = code_of(error), type(error).__name__
    bucket = plain("/".join(url.split("/", 3)[:3]))
    refusal = _REFUSALS.get(code) or _REFUSALS.get(kind)
    if refusal is not None or isinstance(error, PermissionError):
        return StorageRefused((refusal or _NO_RIGHT).format(bucket=bucket, url=plain(url), code=code or kind))
    if code == "NoSuchUpload":
        return UploadAborted(f"the upload of {plain(url)} was aborted before it was complete: write it again")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if kind == "FileExpired" or code == "PreconditionFailed":
        return StorageUnavailable(f"{plain(url)} was changed while it was read")
    if kind in _NO_CONNECTION:
        return StorageUnavailable(
            f"{bucket} cannot be reached ({kind}): look at its server, at AWS_ENDPOINT_URL and at the network"
        )
    return StorageUnavailable(f"{bucket} does not answer as it should: {code or kind}")


def code_of(error: BaseException) -> str:
    """The code of S3's answer that led to an error, such as AccessDenied; empty where there was none."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code") or "")
        cause = cause.__cause__ or cause.__context__
    return ""
