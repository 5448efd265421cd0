"""Errors name fields of requests; the command line shows its options for them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from asked import refused
from typer.main import get_command

import labelmill
from labelmill.cli.field_options import OPTION_OF, words_of
from labelmill.cli.main import build_app
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import Notice, named

PRODUCER = Path(labelmill.__file__).parent


def _fields() -> Iterator[tuple[str, str]]:
    """Where a field is named, and which."""
    for file in PRODUCER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            given = [node.args[0]] if called == "named" and node.args else []
            given += [keyword.value for keyword in node.keywords if keyword.arg == "field"]
            yield from (
                (f"{file.name}:{node.lineno}", one.value)
                for one in given
                if isinstance(one, ast.Constant) and isinstance(one.value, str)
            )


def test_every_field_that_an_error_names_has_an_option() -> None:
    found = list(_fields())
    assert len({field for _, field in found}) > 20
    assert [(place, field) for place, field in found if field not in OPTION_OF] == []


def test_every_option_of_the_table_is_one_of_a_command() -> None:
    names = set()
    commands = [get_command(build_app())]
    while commands:
        command = commands.pop()
        names |= {name for one in command.params for name in one.opts}
        commands += [command.get_command(None, name) for name in getattr(command, "list_commands", lambda _: [])(None)]  # type: ignore[arg-type]
    assert {option for option in OPTION_OF.values() if option.startswith("-")} - names == set()


def test_a_field_is_an_option_on_the_command_line_and_a_parameter_in_python() -> None:
    error = InvalidInput(f"say {named('on_bad_row', 'skip')} or {named('id_column')}")
    assert (error.message, error.field) == ("say on_bad_row=skip or id_column", "on_bad_row")
    assert words_of(error) == "say --on-bad-row skip or --id"
    assert error.stored == "say --on-bad-row skip or --id-column"
    assert words_of(Notice(f"try {named('encoding', 'cp1252')}")) == "try --encoding cp1252"


def test_text_of_a_user_that_looks_like_a_field_does_no_harm() -> None:
    assert (
        words_of(InvalidInput(f"{named('no_such_field')} {named('split', chr(0xFDD0))}"))
        == "no_such_field --split \ufdd0"
    )


@pytest.mark.parametrize("wrong", ["10%", "a/b/c"])
def test_sentences_of_commands_name_options(wrong: str) -> None:
    from labelmill.services.datasets import PrepareRequest  # noqa: PLC0415 - for this one

    with refused(f"--split '{wrong}' is not three numbers"):
        PrepareRequest.of("d", "rows.jsonl", targets=["a=b"], split=wrong)
    with pytest.raises(InvalidInput, match=f"^split='{wrong}' is not three numbers"):
        PrepareRequest.of("d", "rows.jsonl", targets=["a=b"], split=wrong)
