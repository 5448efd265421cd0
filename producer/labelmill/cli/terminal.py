"""Printing to terminals: control characters in labels, names and Mistral's texts are escaped."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from labelmill.cli.streams import discard
from labelmill.contracts.control_characters import visible


class PlainConsole(Console):
    """Prints text without interpreting markup, with control characters escaped.

    Rich makes a text of every string that it prints by `render_str`, those in tables too.
    """

    def __init__(self, **options: Any) -> None:
        # user data may look like markup: [red], :tada:
        super().__init__(**({"markup": False, "emoji": False, "highlight": False} | options))

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as a text."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        """The reader has closed the stream: the command goes on without output, where Rich would exit."""
        self.quiet = True
        discard(sys.stderr if self.stderr else sys.stdout)
