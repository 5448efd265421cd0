"""How a dataset of the Hugging Face hub is named: `hf:owner/repo[/config]`."""

from __future__ import annotations

import re

from labelmill.contracts.bounds import plain
from labelmill.contracts.errors import InvalidInput

HUB = "hf:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_CONFIG = re.compile(r"[A-Za-z0-9][\w .+/-]{0,199}(?<! )", re.ASCII)


def split_hub_reference(reference: str) -> tuple[str, str | None]:
    """`owner/repo/config`, without `hf:` → (`owner/repo`, `config`); the configuration may be absent.

    Raises InvalidInput.
    """
    parts = reference.split("/", 2)
    config = parts[2] if len(parts) > 2 else "default"
    is_plain = all(_NAME.fullmatch(name) for name in parts[:2]) and len(parts) > 1
    if not is_plain or not _CONFIG.fullmatch(config) or ".." in reference:
        raise InvalidInput(
            f"hf:{plain(reference)} is no dataset of the hub; write hf:owner/name or hf:owner/name/config"
        )
    return "/".join(parts[:2]), parts[2] if len(parts) > 2 else None
