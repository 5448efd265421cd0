"""How a dataset of the Hugging Face hub is named: `hf:owner/repo[/config]`."""

from __future__ import annotations

from labelmill.contracts.errors import InvalidInput

HUB = "hf:"


def split_hub_reference(reference: str) -> tuple[str, str | None]:
    """`owner/repo/config`, without `hf:` → (`owner/repo`, `config`); the configuration may be absent.

    Raises InvalidInput.
    """
    parts = reference.split("/", 2)
    if not all(parts) or any(part in (".", "..") or part != part.strip() for part in parts):
        raise InvalidInput(f"hf:{reference} is no dataset of the hub; write hf:owner/name or hf:owner/name/config")
    return "/".join(parts[:2]), parts[2] if len(parts) > 2 else None
