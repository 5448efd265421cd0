"""Mistral's address and key, checked before the first call."""

from __future__ import annotations

from labelmill.contracts.errors import CredentialsRefused, InvalidInput, WorkerUnable
from labelmill.core.addresses.mistral import read_mistral_url
from labelmill.core.settings import Settings


class UnusableAddress(InvalidInput, WorkerUnable):
    """This worker's setting names no address of Mistral's."""

    is_about_mistral = True


def usable_key(settings: Settings) -> str:
    """The Mistral key. Raises CredentialsRefused when there is none or it cannot stand in a header."""
    key = settings.mistral_api_key.get_secret_value().strip() if settings.mistral_api_key else ""
    if not key:
        raise CredentialsRefused(
            "there is no Mistral key: set MISTRAL_API_KEY in the worker's environment and start it again"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise CredentialsRefused("MISTRAL_API_KEY holds characters that no key has; paste it again")
    return key


def usable_url(settings: Settings) -> str:
    """Mistral's address, without a slash at its end. Raises InvalidInput unless it can be one."""
    try:
        return read_mistral_url(settings.mistral_url, allow_http=settings.allow_http)
    except ValueError as error:
        raise UnusableAddress(f"setting LABELMILL_MISTRAL_URL: {error}") from error
