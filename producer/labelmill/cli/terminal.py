"""What is printed. No character that a terminal would obey reaches it from a label, a name or Mistral's words."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from labelmill.cli.streams import discard
from labelmill.contracts.control_characters import visible


class PlainConsole(Console):
    """Prints what it is given as it is written, without markup, and characters that a terminal would obey as escapes.

    Rich makes a text of every string that it prints by `render_str`, those in tables too.
    """

    def __init__(self, **options: Any) -> None:
        # what users write may look like markup: [red], :tada:
        super().__init__(**({"markup": False, "emoji": False, "highlight": False} | options))

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as a text."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        """Its reader has left: the command goes on in silence, where Rich would end the process."""
        self.quiet = True
        discard(sys.stderr if self.stderr else sys.stdout)
