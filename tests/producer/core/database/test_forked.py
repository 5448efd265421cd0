"""A process that is forked has connections of its own."""

from __future__ import annotations

import subprocess
import sys

from sqlalchemy.engine import Engine

_PROGRAM = """
import os, sys
from sqlalchemy import text
from labelmill.core.database import reading
from labelmill.core.database.connecting import connect

engine = connect(sys.argv[1])


def all_answers_are_right(first):
    for number in range(first, first + 200):
        with reading(engine) as connection:
            if connection.scalar(text(f"SELECT {number}")) != number:
                return False
    return True


assert all_answers_are_right(0)
child = os.fork()
if not child:
    is_right = False
    try:
        is_right = all_answers_are_right(1000)
    finally:
        os._exit(0 if is_right else 1)
assert all_answers_are_right(2000)
assert os.waitpid(child, 0)[1] == 0
assert all_answers_are_right(3000)
"""


def test_a_forked_process_and_its_parent_do_not_share_connections(engine: Engine) -> None:
    program = [sys.executable, "-c", _PROGRAM, engine.url.render_as_string(hide_password=False)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
