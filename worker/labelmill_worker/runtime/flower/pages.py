"""What Labelmill changes of Flower's pages: queues that are always listed, and tables that fit a phone.

Flower has no option for either, so two methods of `BaseHandler` are replaced. What breaks when Flower changes
(`tests/ops/test_flower.py` shows it):

- `get_active_queue_names()` gives the queues that the broker's page asks for. Else a queue that no worker serves is not
  listed, while messages wait there.
- `render_string(template, …)` makes every page, as bytes with a `</head>`. Else tables are cut off on a phone.
"""

from __future__ import annotations

from typing import Any

from flower.views import BaseHandler  # type: ignore[import-untyped]

from labelmill.contracts.job_kinds import QUEUE_OF

#: A phone shows a task's name, its job and its state, the first three columns, of which two may break anywhere; and of
#: a queue its messages, for Redis tells nothing of the other columns.
_ON_PHONES = b"""<style>
@media (max-width: 767.98px) {
  .tasks-page .tasks-table > :not(caption) > * > * { padding: 0.6rem 0.3rem; font-size: 0.75rem; }
  .tasks-page .tasks-table > :not(caption) > * > :nth-child(-n+2) {
    min-width: 7.25rem; max-width: 7.25rem; white-space: normal !important; overflow-wrap: anywhere;
  }
  .broker-page .broker-table > * > tr > :nth-child(2) { display: table-cell; }
  .broker-page .broker-table > * > tr > :nth-child(n+3) { display: none; }
}
</style>
</head>"""
_PAGES = ("tasks.html", "broker.html")


def adapt_pages() -> None:
    """Change the classes that all of Flower's pages are made with."""
    active_queues, render_string = BaseHandler.get_active_queue_names, BaseHandler.render_string

    def all_queues(self: Any) -> list[str]:
        # Flower lists those that workers serve: one that no worker serves is where messages wait
        return sorted({*active_queues(self), *QUEUE_OF.values()})

    def render(self: Any, template: str, **values: Any) -> bytes:
        page: bytes = render_string(self, template, **values)
        return page.replace(b"</head>", _ON_PHONES, 1) if template in _PAGES else page

    BaseHandler.get_active_queue_names, BaseHandler.render_string = all_queues, render
