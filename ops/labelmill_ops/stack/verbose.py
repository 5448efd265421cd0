"""Shows what children write to their logs, each line behind its child's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from labelmill_ops.stack.child import Child


class LogFollower:
    """Call it again and again; it shows the whole lines that were added since the last call."""

    def __init__(self, show: Callable[[str], None], prefix: str) -> None:
        self._show = show
        self._prefix = prefix
        self._read_to: dict[Path, int] = {}

    def __call__(self, children: list[Child]) -> None:
        for child in children:
            if child.spec.name.startswith(self._prefix):
                self._show_new_lines(child)

    def _show_new_lines(self, child: Child) -> None:
        with child.log_path.open("rb") as log:
            log.seek(self._read_to.get(child.log_path, 0))
            added = log.read(1 << 20)
        whole = added[: added.rfind(b"\n") + 1]
        self._read_to[child.log_path] = self._read_to.get(child.log_path, 0) + len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self._show(f"{child.spec.name} | {line}")
