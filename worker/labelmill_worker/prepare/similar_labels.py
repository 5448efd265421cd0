"""Labels that a reader would take for one: they differ only by case, by how accents are written, or by characters that
cannot be seen. Pure."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

_NAMED = 5  #: Groups of labels in a warning.
_NAMED_LABELS = 4  #: Of one group.
#: Shown as nothing, though Unicode does not count them among its format characters.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}


def similar_labels_warning(target: str, labels: Iterable[str]) -> str | None:
    """One sentence that names a few of the similar labels of a target, or None where there are none."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[_as_seen(label)].append(label)
    similar = [group for group in groups.values() if len(group) > 1]
    if not similar:
        return None
    named = "; ".join(_named(group) for group in similar[:_NAMED])
    more = f"; and {len(similar) - _NAMED} more such groups" if len(similar) > _NAMED else ""
    return (
        f"the target {target!r} has labels that differ only by case, accent form or invisible characters and count as "
        f"different labels: {named}{more}"
    )


def _as_seen(label: str) -> str:
    # a compatibility form would make one of labels that look different, such as x² and x2
    visible = "".join(
        character
        for character in unicodedata.normalize("NFC", label)
        if character not in _INVISIBLE and (character.isspace() or unicodedata.category(character) not in ("Cf", "Cc"))
    )
    return unicodedata.normalize("NFC", " ".join(visible.split()).casefold())


def _named(group: Sequence[str]) -> str:
    differ_by_case = len({label.casefold() for label in group}) == 1
    shown = [repr(label) if differ_by_case else ascii(label) for label in group[:_NAMED_LABELS]]
    more = f" and {len(group) - _NAMED_LABELS} more" if len(group) > _NAMED_LABELS else ""
    return " and ".join(shown) + more if not more else ", ".join(shown) + more
