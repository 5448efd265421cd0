"""Whether the arguments of a call are of the types that it declares, for callers that check no types themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from labelmill.contracts.bounds import plain, shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named

_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "Mapping": "a mapping",
    "Sequence": "a list",
    "Iterable": "a list",
}

_SHOWN_CHARS = 60


def check_arguments(call: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise InvalidInput, whose field names it, for the first argument of another type. `given`: the call's `locals()`.

    Annotations must be written as in `Mapping[str, float] | None`; types that are not known here are not checked.
    """
    for name, annotation in call.__annotations__.items():
        if name not in given:
            continue
        kinds = annotation.split(" | ") if "[" not in annotation else _alternatives(annotation)
        if not any(_is_of(given[name], kind) for kind in kinds):
            wanted = " or ".join(_described(kind) for kind in kinds if kind != "None")
            raise InvalidInput(f"{named(name)} must be {wanted}, not {_shown(given[name])}", field=name)


def plain_number(number: float | None) -> float | None:
    """A number that was checked, such as a Decimal or one of NumPy's, as one that JSON and databases keep."""
    return None if number is None else float(number)


def _shown(value: Any) -> str:
    return shown(value) if isinstance(value, str) else plain(repr(value)[:_SHOWN_CHARS])


def _alternatives(annotation: str) -> list[str]:
    """The types of a union; those within brackets stay together."""
    kinds, depth = [""], 0
    for part in annotation.split(" | "):
        kinds[-1] = f"{kinds[-1]} | {part}" if depth else part
        depth += part.count("[") - part.count("]")
        if not depth:
            kinds.append("")
    return kinds[:-1]


def _is_of(value: Any, kind: str) -> bool:
    outer, _, inner = kind.partition("[")
    inner = inner.removesuffix("]")
    if outer == "None":
        return value is None
    if outer == "str":
        return isinstance(value, str)
    if outer == "bool":
        return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")  # NumPy's too
    if outer == "int":
        return isinstance(value, Integral) and not isinstance(value, bool)
    if outer == "float":
        return isinstance(value, (Real, Decimal)) and not isinstance(value, bool)
    if outer == "Mapping":
        of_names, of_values = inner.split(", ")
        return isinstance(value, Mapping) and all(
            _is_of(name, of_names) and _is_of(part, of_values) for name, part in value.items()
        )
    if outer in ("Sequence", "Iterable"):
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            return False
        kinds = inner.split(" | ")
        # what can be read once only is checked where it is read
        return not isinstance(value, Collection) or all(any(_is_of(one, kind) for kind in kinds) for one in value)
    return True


def _described(kind: str) -> str:
    outer, _, inner = kind.partition("[")
    described = _WORDS.get(outer, outer)
    if outer == "Mapping" and "float" in inner:
        return f"{described} of texts to numbers"
    if outer == "Mapping":
        return f"{described} of texts to texts"
    return f"{described} of texts" if inner == "str]" else described
