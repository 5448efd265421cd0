"""Which authorities are trusted: the system's, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR` in their place; those of
`REQUESTS_CA_BUNDLE` in addition."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import certifi

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_MAX_BYTES = 50_000_000  #: Of one file.


@dataclass(frozen=True, slots=True)
class Authorities:
    """Certificates in DER form. `replace_system`: the system's are not trusted."""

    certificates: tuple[bytes, ...] = ()
    replace_system: bool = False

    def context(self) -> ssl.SSLContext:
        """What Python's own TLS checks servers by."""
        if self.replace_system:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        else:
            context = ssl.create_default_context()
            paths = ssl.get_default_verify_paths()
            if paths.cafile is None and paths.capath is None:  # this Python does not know where the system keeps them
                context.load_verify_locations(certifi.where())
        if self.certificates:
            context.load_verify_locations(cadata=b"".join(self.certificates))
        return context


def read_authorities(environment: Mapping[str, str]) -> Authorities:
    """Read what the variables name. Raises ValueError, naming the variable and the file."""
    replacing = [
        *_of_files(environment, "SSL_CERT_FILE"),
        *_of_folders(environment, "SSL_CERT_DIR"),
    ]
    additional = _of_files(environment, "REQUESTS_CA_BUNDLE", or_folder=True)
    return Authorities(tuple(dict.fromkeys([*replacing, *additional])), bool(replacing))


def _of_files(environment: Mapping[str, str], name: str, *, or_folder: bool = False) -> list[bytes]:
    file = environment.get(name, "")
    if not file:
        return []
    if or_folder and Path(file).is_dir():
        return _of_folders(environment, name)
    try:
        return _usable(name, file, _certificates_in(Path(file)))
    except OSError as error:
        raise ValueError(f"{name}: {file} cannot be read: {error.strerror or error}") from error


def _of_folders(environment: Mapping[str, str], name: str) -> list[bytes]:
    named = environment.get(name, "")
    certificates: list[bytes] = []
    for folder in filter(None, named.split(os.pathsep)):
        try:
            files = sorted(file for file in Path(folder).iterdir() if file.is_file())
            certificates += [der for file in files for der in _certificates_in(file)]
        except OSError as error:
            raise ValueError(f"{name}: {error.filename or folder} cannot be read: {error.strerror or error}") from error
    return _usable(name, named, certificates) if named else []


def _certificates_in(file: Path) -> Iterable[bytes]:
    with file.open("rb") as stream:
        text = stream.read(_MAX_BYTES).decode("latin-1")
    for match in _CERTIFICATE.finditer(text):
        try:
            yield ssl.PEM_cert_to_DER_cert(match[0])
        except ValueError:
            continue  # not a certificate


def _usable(name: str, place: str, certificates: Iterable[bytes]) -> list[bytes]:
    usable = [certificate for certificate in dict.fromkeys(certificates) if _is_certificate(certificate)]
    if not usable:
        raise ValueError(f"{name}: {place} holds no certificate in PEM form")
    return usable


def _is_certificate(certificate: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
    except ssl.SSLError:
        return False
    return True
