"""The page: one HTML file that loads nothing. Every text of a user is escaped."""

from __future__ import annotations

import re
from html import escape

from labelmill.report.drawing import is_large, svg_of
from labelmill.report.parts import Figure, Grid, Heading, Note, Part, Report

#: Where a narrow column breaks a label: `cancel_|order`, `card/|lost`, `cancel|Order`. Not within `&amp;`, as text is
#: written here.
_BEHIND_PART = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=\w[_/:])(?=\w)|(?<=[a-z]\.)(?=[a-z])")

_STYLE = """
:root { color-scheme: light; --line: #d8dde3; --soft: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: #1c2430;
       background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
.subtitle { color: #55606e; margin: 0 0 1rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1rem;
           align-items: start; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; break-inside: avoid; }
figcaption, caption { font-weight: 600; text-align: left; padding: .25rem 0; }
figure svg { display: block; width: 100%; height: auto; }
figure.large { grid-column: 1 / -1; overflow-x: auto; }
figure.large svg { min-width: 44rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.text { min-width: 14rem; white-space: pre-wrap; }
td.label { max-width: 24rem; overflow-wrap: break-word; }
.facts th { font-weight: 400; color: #55606e; white-space: nowrap; }
.note { margin: .75rem 0; padding: .5rem .75rem; border-left: 4px solid #8a94a0; background: var(--soft); }
.note.good { border-color: #2f8a4c; } .note.warning { border-color: #d19a1b; } .note.bad { border-color: #c0392b; }
@media (max-width: 40rem) {
  body { padding: .75rem; } .facts th { white-space: normal; min-width: 7rem; } td.label { max-width: 8.5rem; }
  table { font-size: .8rem; } th, td { padding-right: .4rem; }
  table.texts, .texts tbody, .texts caption { display: block; } .texts thead { display: none; }
  .texts tr { display: block; padding: .35rem 0; border-bottom: 1px solid var(--line); }
  .texts td { display: inline; border: 0; padding: 0 .5rem 0 0; }
  .texts td.label { overflow-wrap: anywhere; } .texts td.text { display: block; min-width: 0; }
  .texts td::before { content: attr(data-name) " "; color: #55606e; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; } .scroll, figure.large { overflow: visible; }
  h2, caption { break-after: avoid; } tr { break-inside: avoid; } td.text { min-width: 0; }
  .figures { display: block; } figure { display: inline-block; width: 49%; margin-bottom: .5rem; vertical-align: top; }
  figure.large { display: block; width: 100%; } figure svg { max-height: 23cm; } figure.large svg { min-width: 0; }
}
"""


def page_of(report: Report) -> str:
    """The whole file. Raises InvalidInput without Matplotlib, when the report has figures."""
    title = escape(report.title)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f'<p class="subtitle">{escape(report.subtitle)}</p>\n{_body(report)}</body>\n</html>\n'
    )
    return page.encode("utf-8", errors="replace").decode()  # a file's name may hold what no page can


def _body(report: Report) -> str:
    pieces: list[str] = []
    beside: list[str] = []  # figures that follow each other stand side by side where there is room

    def lay_out() -> None:
        if beside:
            pieces.append(f'<div class="figures">\n{"".join(beside)}</div>\n')
            beside.clear()

    for part in report.parts:
        if isinstance(part, Figure):
            beside.append(_figure(part))
        else:
            lay_out()
            pieces.append(_piece(part))
    lay_out()
    return "".join(pieces)


def _figure(figure: Figure) -> str:
    kind = ' class="large"' if is_large(figure) else ""
    return f"<figure{kind}><figcaption>{escape(figure.title)}</figcaption>\n{svg_of(figure)}\n</figure>\n"


def _piece(part: Part) -> str:
    if isinstance(part, Heading):
        return f"<h2>{escape(part.text)}</h2>\n"
    if isinstance(part, Note):
        return f'<p class="note {part.tone}">{escape(part.text)}</p>\n'
    assert isinstance(part, Grid)  # noqa: S101 - figures are laid out by themselves
    return _table(part)


def _table(grid: Grid) -> str:
    caption = f"<caption>{escape(grid.caption)}</caption>" if grid.caption else ""
    if not grid.headings:
        rows = "".join(f"<tr><th>{escape(str(row[0]))}</th><td>{_written(row[1])}</td></tr>\n" for row in grid.rows)
        return f'<div class="scroll"><table class="facts">{caption}<tbody>\n{rows}</tbody></table></div>\n'
    numbers = {at for at in range(len(grid.headings)) if any(isinstance(row[at], int | float) for row in grid.rows)}
    head = "".join(
        f'<th class="number">{escape(name)}</th>' if at in numbers else f"<th>{escape(name)}</th>"
        for at, name in enumerate(grid.headings)
    )
    rows = "".join(
        "<tr>" + "".join(_cell(value, at, grid, numbers) for at, value in enumerate(row)) + "</tr>\n"
        for row in grid.rows
    )
    kind = ' class="texts"' if grid.texts else ""
    return (
        f'<div class="scroll"><table{kind}>{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>'
        "</div>\n"
    )


def _cell(value: str | float | None, at: int, grid: Grid, numbers: set[int]) -> str:
    kind = "number" if at in numbers else "text" if at in grid.texts else "label"
    # on a phone a cell follows its heading; an empty one is left out
    name = f' data-name="{escape(grid.headings[at])}"' if grid.texts and value is not None else ""
    shown = f"{value:.4f}" if isinstance(value, float) else _written(value)  # a column of numbers stands in line
    if kind == "label":
        shown = _BEHIND_PART.sub("<wbr>", shown)
    return f'<td class="{kind}"{name}>{shown}</td>'


def _written(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escape(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}".rstrip("0").rstrip(".") if value else "0"
