"""The names of the columns of a table of results: unique, whatever the names of targets and kept columns."""

from __future__ import annotations

from collections.abc import Sequence

from labelmill.contracts.bounds import RESULT_COLUMNS, TARGET_SUFFIXES


class ResultColumns:
    """`targets`: target → the name of its column, `intent`, to which `_score` and so on are added. `kept`: column of
    the source → its name here.

    A target that is called like another column is `target_NAME`: datasets have none (`prepare` refuses them), but a
    classifier that was fine-tuned elsewhere may. A kept column whose name is taken is `source_NAME`.
    """

    def __init__(self, targets: Sequence[str], keep: Sequence[str] = ()) -> None:
        taken = set(RESULT_COLUMNS)
        self.targets: dict[str, str] = {}
        for target in targets:
            name = target
            while taken & (names := {name, *(name + suffix for suffix in TARGET_SUFFIXES)}):
                name = f"target_{name}"
            taken |= names
            self.targets[target] = name
        self.kept: dict[str, str] = {}
        kept = dict.fromkeys(keep)
        for column in kept:
            name = column
            # the name of another kept column stays free for that column
            while name in taken or (name != column and name in kept):
                name = f"source_{name}"
            taken.add(name)
            self.kept[column] = name
