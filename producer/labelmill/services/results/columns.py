"""What the columns of a table of results are called: no two alike, whatever targets and kept columns are called."""

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
            while taken & (mine := {name, *(name + suffix for suffix in TARGET_SUFFIXES)}):
                name = f"target_{name}"
            taken |= mine
            self.targets[target] = name
        self.kept: dict[str, str] = {}
        wanted = dict.fromkeys(keep)
        for column in wanted:
            name = column
            # what another column of the source is called stays free for that one
            while name in taken or (name != column and name in wanted):
                name = f"source_{name}"
            taken.add(name)
            self.kept[column] = name
