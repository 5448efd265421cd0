"""Which questions a model answers, and with which labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """One question asked of a text. `labels` are in the order in which scores are stored."""

    name: str
    labels: tuple[str, ...]
    multi: bool = False


@dataclass(frozen=True, slots=True)
class LabelSchema:
    """The targets of a model version, in stored order (a prediction's `target` number is the index)."""

    targets: tuple[Target, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """`[{"name": …, "labels": […], "multi": false}]`."""
        return [{"name": t.name, "labels": list(t.labels), "multi": t.multi} for t in self.targets]

    @classmethod
    def from_json(cls, document: list[dict[str, Any]]) -> LabelSchema:
        return cls(tuple(Target(t["name"], tuple(t["labels"]), bool(t.get("multi", False))) for t in document))

    def target(self, name: str) -> Target:
        """The target of that name. Raises KeyError."""
        for target in self.targets:
            if target.name == name:
                return target
        raise KeyError(name)
