"""How the tests are divided among the processes of pytest-xdist: whole modules, those with slow tests first.

The tests of a module share servers, which each process would have to start anew. Slow modules come first, so that all
processes have work until the end.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

#: These share one running stack (`tests/acceptance/conftest.py`).
_WITH_A_STACK = ("tests/acceptance/test_cookbook.py", "tests/acceptance/test_python_client.py")


class ModulesAtOnce(LoadFileScheduling):  # type: ignore[misc] # xdist has no types
    """One module is one unit of work, in the order in which the processes collected them."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "with a stack" if module in _WITH_A_STACK else module
