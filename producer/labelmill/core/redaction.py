"""Removes keys and passwords from text: from every log line and from the stored excerpts of dropped messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, unquote, urlsplit

from labelmill.core.settings import Settings

HIDDEN = "***"
# Each pattern must take time in proportion to the text: workers redact what comes over Redis, holding the interpreter.
_URL_PASSWORD = re.compile(r"(://[^\s:/@\"']*:)[^\s@/\"']+(?=@)")
_BEARER = re.compile(r"(\bBearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
#: A shorter password of a URL is not searched for elsewhere, because it would match parts of ordinary words.
_SHORTEST_PASSWORD = 6
_SHORTEST_KEY_ID = 12
#: The longest secret, in characters, that is recognised by its context. Where a text is cut, as much is removed from
#: the end, because the cut may lie within a secret.
_LONGEST_SECRET = 500


class SecretRemover:
    """Replaces the configured keys and passwords, passwords in any URL, and bearer tokens."""

    def __init__(self, settings: Settings) -> None:
        # in a JSON string or a URL some characters of a secret are escaped
        forms = {
            form
            for secret in _secrets(settings)
            for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe=""))
        }
        longest_first = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if forms else None
        self._margin = max(_LONGEST_SECRET, *map(len, forms)) if forms else _LONGEST_SECRET

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        # configured secrets go first: a pattern could remove a part of one and leave the rest
        text = self._known.sub(HIDDEN, text) if self._known else text
        return _BEARER.sub(rf"\1{HIDDEN}", _URL_PASSWORD.sub(rf"\1{HIDDEN}", text))

    def excerpt(self, text: str, max_chars: int) -> str:
        """The start of a text of any length, without secrets or parts of secrets."""
        if len(text) <= max_chars:
            return self(text)
        # the text is cut before it is redacted, to bound the time; its end may hold a part of a secret
        is_cut = len(text) > max_chars + self._margin
        clean = self(text[: max_chars + self._margin])
        clean = clean[: max(0, len(clean) - self._margin)] if is_cut else clean
        return clean if len(clean) <= max_chars and not is_cut else f"{clean[: max_chars - 1]}…"


def secret_remover(settings: Settings) -> SecretRemover:
    """The remover of the secrets in `settings`."""
    return SecretRemover(settings)


def _secrets(settings: Settings) -> Iterator[str]:
    keys = (
        settings.mistral_api_key,
        settings.wandb_api_key,
        settings.aws_secret_access_key,
        settings.aws_session_token,
    )
    for key in keys:
        if key and (secret := key.get_secret_value().strip()):
            yield secret
    key_id = settings.aws_access_key_id
    # a shorter one is a word, such as `minio`, which would be removed from ordinary sentences
    if key_id and len(name := key_id.get_secret_value().strip()) >= _SHORTEST_KEY_ID:
        yield name
    for url in (settings.broker_url, settings.database_url):
        try:
            parts = urlsplit(url)
            passwords = [unquote(parts.password or ""), *parse_qs(parts.query).get("password", ())]
        except ValueError:
            continue  # not a URL; the connection attempt reports that
        yield from (password for password in passwords if len(password) >= _SHORTEST_PASSWORD)
