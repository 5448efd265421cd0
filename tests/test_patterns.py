"""Every regular expression of the project takes time in proportion to the text.

On hostile text of twice the length it takes at most three times as long. The patterns are found in the sources, so that
a new one is tried without being named here. One that is put together while the program runs cannot be found that way:
the test says where it is, and `_BUILT` gives an example of it.
"""

from __future__ import annotations

import ast
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from re import _constants, _parser  # type: ignore[attr-defined] # the only parser of patterns there is
from typing import Any

import pytest
from fsspec.utils import glob_translate

from labelmill.contracts import control_characters, field_names
from labelmill.core.readers.formats import csv_cells
from labelmill.core.redaction import secret_remover
from labelmill.core.settings import Settings
from labelmill.services.results import csv_files
from labelmill_worker.prepare import same_text

_ROOT = Path(__file__).parent.parent
_FOLDERS = ("producer", "worker", "ops")
_FUNCTIONS = {"compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn"}
_FROM_THE_START = ("match", "fullmatch")
#: Patterns kept in a tuple, which a reader asks for a match where it stands, never searches for.
_MATCHED_AT_A_PLACE = {
    ("csv_cells.py", "_patterns"),
    ("csv_files.py", "<module>"),
    ("s3_listing.py", "_matcher"),
}
_LONGEST, _TOO_SHORT_S = 6_000, 0.003
_THREE_TIMES_OF_TWICE = 1.5 ** math.log2(3)  #: As much, of a text half as long again.
_MORE = "aA0 =\"'@:/.\n\t<{[;-"


def _known_secrets() -> re.Pattern[str]:
    found = secret_remover(
        Settings(mistral_api_key="aaaaaaaaaaaaaaaaaaab", broker_url="redis://:a.a.a.a.b@h:1/0")
    )._known  # type: ignore[arg-type]
    assert found is not None
    return found


#: File and function of a pattern that is built → an example of it.
_BUILT: dict[tuple[str, str], list[re.Pattern[str]]] = {
    ("redaction.py", "__init__"): [_known_secrets()],
    ("control_characters.py", "<module>"): [control_characters._IN_TEXT, control_characters._IN_LINE],
    ("field_names.py", "<module>"): [field_names._NAMED],
    ("same_text.py", "_any_of"): [same_text._ignored(), same_text._unseen()],
    ("s3_listing.py", "_matcher"): [re.compile(glob_translate(one)) for one in ("data/*.jsonl", "**/part-?.[jc]s*")],
    ("csv_files.py", "<module>"): [csv_files._SIGN, csv_files._AT_START],
    ("csv_files.py", "formula_guard"): [
        re.compile(f'[;|\t\r\n][ "]*(?=[{csv_files._SIGNS}])'),
        re.compile(',"*(?=[=@\uff1d\uff20])'),
    ],
    ("csv_cells.py", "_patterns"): [
        one
        for delimiter in (",", "\t")
        for value in csv_cells._patterns(delimiter)
        for one in (value if isinstance(value, tuple) else [value])
    ],
}


def _sources() -> list[Path]:
    """The modules that name a function of `re`: to parse all modules would take seconds of every collection."""
    paths = [path for folder in _FOLDERS for path in sorted((_ROOT / folder).rglob("*.py")) if not path.is_symlink()]
    named = re.compile(rf"\bre\.({'|'.join(_FUNCTIONS)})\b")
    return [path for path in paths if named.search(path.read_text())]


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """The calls of `re` in a file, each with the function that it stands in."""

    def within(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
                owner = child.func.value
                if isinstance(owner, ast.Name) and owner.id == "re" and child.func.attr in _FUNCTIONS:
                    yield function, child
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from within(child, child.name if is_function else function)  # type: ignore[attr-defined]

    yield from within(_parsed(path), "<module>")


def _flags(call: ast.Call) -> int:
    names = {node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)}
    flags = 0
    for name in ("IGNORECASE", "MULTILINE", "DOTALL", "ASCII", "VERBOSE"):
        flags |= int(getattr(re, name)) if name in names else 0
    return flags


@dataclass(frozen=True)
class _Used:
    """A pattern, and whether all that is done with it begins at the start of a text."""

    pattern: re.Pattern[str]
    is_from_start: bool = False


def _is_from_start(path: Path, call: ast.Call) -> bool:
    """Whether a file asks a pattern for matches at the start alone: elsewhere it is searched for at every place."""
    assert isinstance(call.func, ast.Attribute)
    if call.func.attr != "compile":
        return call.func.attr in _FROM_THE_START
    nodes = list(ast.walk(_parsed(path)))
    names = {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and ast.dump(node.value) == ast.dump(call)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    asked = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
    }
    return bool(asked) and asked <= set(_FROM_THE_START)


def _patterns() -> dict[str, _Used]:
    found: dict[str, _Used] = {}
    for path in _sources():
        for function, call in _calls(path):
            written = call.args[0] if call.args else None
            where = f"{path.relative_to(_ROOT)}:{call.lineno}"
            if isinstance(written, ast.Constant) and isinstance(written.value, str):
                is_from_start = (path.name, function) in _MATCHED_AT_A_PLACE or _is_from_start(path, call)
                found[where] = _Used(re.compile(written.value, _flags(call)), is_from_start)
                continue
            examples = _BUILT.get((path.name, function))
            assert examples, f"{where} builds a pattern: give an example of it in _BUILT"
            is_from_start = (path.name, function) in _MATCHED_AT_A_PLACE
            found |= {f"{where} #{number}": _Used(example, is_from_start) for number, example in enumerate(examples)}
    return found


def _letters(parsed: Any) -> Iterator[str]:
    """Characters that a pattern speaks of."""
    for kind, value in parsed:
        if kind in (_constants.LITERAL, _constants.NOT_LITERAL):
            yield chr(value)
        elif kind is _constants.RANGE:
            yield chr(value[0])
        elif kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
            yield from _letters(value[2])
        elif kind is _constants.IN:
            yield from _letters(value)
        elif kind is _constants.SUBPATTERN:
            yield from _letters(value[3])
        elif kind is _constants.BRANCH:
            for branch in value[1]:
                yield from _letters(branch)
        elif kind in (_constants.ASSERT, _constants.ASSERT_NOT):
            yield from _letters(value[1])


def _literals(parsed: Any) -> str:
    """What of a pattern must stand in a text as it is, optional parts once."""
    return "".join(_letters(parsed))


def _hostile(pattern: re.Pattern[str]) -> list[Callable[[int], str]]:
    """Makers of texts of a length: what the pattern looks for, begun again and again and never ended."""
    parsed = _parser.parse(pattern.pattern, pattern.flags)
    whole = _literals(parsed)
    letters = sorted(set(whole[:40])) + [letter for letter in _MORE if letter not in whole]
    starts = {whole[:length] for length in (1, 2, 3, 4, 6, 8, 9, 10, 12, 16, 24, len(whole))} | {""}
    units = {"".join(pair) for pair in product(letters[:16], repeat=2)} | starts - {""}
    units |= {start + letter for start in starts for letter in letters[:16]}

    def repeated(unit: str) -> Callable[[int], str]:
        return lambda length: (unit * (length // len(unit) + 1))[:length] + "\x01"

    def begun(start: str, unit: str) -> Callable[[int], str]:
        return lambda length: start + (unit * length)[:length] + "\x01"

    makers = [repeated(unit) for unit in sorted(units)]
    return makers + [begun(start, letter) for start in sorted(starts) for letter in letters[:16]]


def _seconds(used: _Used, text: str, *, times: int = 1) -> float:
    best = float("inf")
    for _ in range(times):
        started = time.thread_time()
        used.pattern.fullmatch(text)
        used.pattern.match(text)
        if not used.is_from_start:
            used.pattern.search(text)
            used.pattern.sub("", text)
        best = min(best, time.thread_time() - started)
    return best


def _slow_text(used: _Used) -> str | None:
    """The start of a text on which the time grows faster than the text, or None."""
    for make in _hostile(used.pattern):
        length = 16
        # by small steps: where the time is exponential, the next step must end too
        while length < _LONGEST and _seconds(used, make(length)) < _TOO_SHORT_S:
            length = length * 3 // 2
        if length < _LONGEST and all(_growth(used, make, length) > _THREE_TIMES_OF_TWICE for _ in range(4)):
            return make(60)
    return None


def _growth(used: _Used, make: Callable[[int], str], length: int) -> float:
    return _seconds(used, make(length * 3 // 2)) / _seconds(used, make(length), times=2)


_FOUND = _patterns()


def test_the_patterns_of_the_project_are_found() -> None:
    assert len(_FOUND) > 20
    assert any("redaction" in where for where in _FOUND)


@pytest.mark.parametrize("where", _FOUND)
def test_twice_the_text_takes_at_most_three_times_as_long(where: str) -> None:
    assert _slow_text(_FOUND[where]) is None


@pytest.mark.parametrize(
    "written",
    [
        r"(\b[a-z][a-z0-9+.-]*://[^\s:/@\"']*:)[^\s@/\"']+(?=@)",
        r"<metadata>.*?</metadata>",
        r"\s+$",
        r'(<svg[^>]*?)\s(?:width|height)="[^"]*"',
        r"x*x*y",
    ],
)
def test_patterns_that_take_longer_are_told(written: str) -> None:
    assert _slow_text(_Used(re.compile(written, re.DOTALL))) is not None
