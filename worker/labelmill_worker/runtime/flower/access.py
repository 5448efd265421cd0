"""Whether Flower may listen where it is told to, with the passwords it is given."""

from __future__ import annotations

from typing import Any

from labelmill.core.addresses.loopback import is_loopback

LOOPBACK = "127.0.0.1"


def why_not_to_start(options: Any) -> str | None:
    """What is wrong with Flower's options, in one sentence, or None. Pages show job ids and workers' names, so others
    see them by a password only."""
    for credentials in options.basic_auth or ():
        user, _, password = credentials.partition(":")
        if not user or not password:  # an empty one would let everybody in
            return "Flower does not start: write FLOWER_BASIC_AUTH=user:password, both of them not empty"
    if options.unix_socket or options.basic_auth or options.auth or is_loopback(options.address):
        return None
    return (
        f"Flower does not start on {options.address} without a password: set FLOWER_BASIC_AUTH=user:password, or "
        f"listen on {LOOPBACK}"
    )
