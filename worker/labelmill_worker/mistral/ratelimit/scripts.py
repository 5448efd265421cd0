"""The Lua scripts that run inside Redis: each is one atomic step. The files in `lua/` say which keys they touch."""

from __future__ import annotations

from importlib.resources import files

from labelmill_worker.mistral.ratelimit.law import LAW

_FOLDER = files(__package__) / "lua"
_SHARED = LAW.as_lua() + (_FOLDER / "shared.lua").read_text("utf-8")


def script(name: str) -> str:
    """The script `lua/<name>.lua`, with the numbers and functions that it uses."""
    return _SHARED + (_FOLDER / f"{name}.lua").read_text("utf-8")
