"""Nothing of another library's is replaced at run time, but where a module says what breaks by it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import labelmill
import labelmill_ops
import labelmill_worker

#: The modules that may, and what they say of it stands in their docstrings.
ALLOWED = {"labelmill_worker/runtime/flower/pages.py"}
PACKAGES = [Path(package.__file__ or "").parent for package in (labelmill, labelmill_worker, labelmill_ops)]
#: Of no interest: Labelmill's own, Python's, and options that are there to be set.
NOT_FOREIGN = {"labelmill", "labelmill_worker", "labelmill_ops", "tornado", *sys.stdlib_module_names}
#: What Celery hands to steps, signals and hooks.
HANDED = {"parent", "worker", "consumer", "sender", "app"}
#: Of an application its settings and steps may be changed: that is what they are for.
SETTINGS = ("app.conf", "app.steps")


def _foreign_names(tree: ast.AST) -> set[str]:
    """What a module imports from other libraries."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in NOT_FOREIGN:
            names |= {alias.asname or alias.name for alias in node.names}
    return names - NOT_FOREIGN


def _changed(tree: ast.AST) -> Iterator[ast.expr]:
    """Whose attributes or entries a module sets."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = [part for target in node.targets for part in getattr(target, "elts", [target])]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            yield node.args[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
            called = node.func.value
            if isinstance(called, ast.Name) and called.id.isupper():
                yield called
        yield from (target.value for target in targets if isinstance(target, ast.Attribute | ast.Subscript))


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _replaced(path: Path) -> list[str]:
    tree = ast.parse(path.read_text("utf-8"))
    forbidden = _foreign_names(tree) | (HANDED if "celery" in path.read_text("utf-8") else set())
    return [
        f"{path.name}:{changed.lineno} {ast.unparse(changed)}"
        for changed in _changed(tree)
        if _root(changed) in forbidden and not ast.unparse(changed).startswith(SETTINGS)
    ]


def test_nothing_of_another_librarys_is_replaced_but_where_a_module_says_what_breaks() -> None:
    found = {
        str(path.relative_to(package.parent)): replaced
        for package in PACKAGES
        for path in package.rglob("*.py")
        if (replaced := _replaced(path))
    }
    assert found.keys() == ALLOWED, found
