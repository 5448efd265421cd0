"""Keys and passwords taken out of text: of every line of a log, of whatever is kept of a dropped message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote, unquote, urlsplit

from labelmill.contracts.settings import Settings

HIDDEN = "***"
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@\"']*:)[^\s@/\"']+(?=@)", re.IGNORECASE)
_BEARER = re.compile(r"(\bBearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
#: A password of a URL is hidden wherever it stands, unless it is so short that it would be found within words.
_SHORTEST_PASSWORD = 6


def secret_remover(settings: Settings) -> Callable[[str], str]:
    """A function that replaces the configured keys and passwords, passwords in any URL, and bearer tokens."""
    # a secret may stand in a JSON string or a URL, where some characters of it are written differently
    forms = {
        form
        for secret in _secrets(settings)
        for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe=""))
    }
    known = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))) if forms else None

    def redact(text: str) -> str:
        # what is configured goes first: a pattern could leave a part of it
        text = known.sub(HIDDEN, text) if known else text
        return _BEARER.sub(rf"\1{HIDDEN}", _URL_PASSWORD.sub(rf"\1{HIDDEN}", text))

    return redact


def _secrets(settings: Settings) -> Iterator[str]:
    for key in (settings.mistral_api_key, settings.wandb_api_key):
        if key and (secret := key.get_secret_value().strip()):
            yield secret
    for url in (settings.broker_url, settings.database_url):
        try:
            password = unquote(urlsplit(url).password or "")
        except ValueError:
            continue  # no URL; whoever connects says so
        if len(password) >= _SHORTEST_PASSWORD:
            yield password
