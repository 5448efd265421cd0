"""Figures by Matplotlib: SVG for the page, PNG for slides. Narrow, so that a phone need not shrink their words."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from labelmill.contracts.errors import InvalidInput
from labelmill.report.parts import Curves, Dots, Figure, Histogram, Matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_IN = 4.8
_LARGE_WIDTH_IN = 9.0
_COLOURS = ("#1f5fa8", "#d1661b", "#2f8a4c", "#8a4ca8")
_NAMED_CELLS = 30  #: Labels of a matrix that still fit beside it; those of a larger one are numbered.
_NUMBERED_EVERY = 5
_WRITTEN_CELLS = 12  #: Labels of a matrix whose cells hold their counts.
_LABEL_CHARS = 28
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # words stay words: they can be found, copied and read aloud
    "svg.hashsalt": "labelmill",
    "text.parse_math": False,  # labels may hold dollars
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
#: After DejaVu, which has no ideographs: where one of these is installed, a PNG shows them. (A page has its browser's.)
_FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans CJK KR",
    "Noto Sans JP",
    "Noto Sans SC",
    "Noto Sans KR",
    "Source Han Sans",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "IPAexGothic",
    "TakaoGothic",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Yu Gothic",
    "Microsoft YaHei",
    "SimHei",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
)
_SCHEMAS_AND_SIZE = re.compile(r'\s(?:xmlns(?::\w+)?|version|width|height)="[^"]*"')


def is_large(figure: Figure) -> bool:
    """Whether a figure needs the whole width of a page."""
    return isinstance(figure, Matrix) and len(figure.rows) > _NAMED_CELLS


def svg_of(figure: Figure) -> str:
    """The figure as an SVG element to be put into a page. Raises InvalidInput without Matplotlib."""
    text = _saved(figure, "svg").decode()
    head, _, rest = text[text.index("<svg") :].partition(">")
    before, _, after = rest.partition("<metadata>")
    return f"{_SCHEMAS_AND_SIZE.sub('', head)}>{before}{after.partition('</metadata>')[2]}"


def png_of(figure: Figure) -> bytes:
    """The figure as a PNG. Raises InvalidInput without Matplotlib."""
    return _saved(figure, "png")


def _saved(figure: Figure, kind: str) -> bytes:
    with _matplotlib() as (figure_class, cycler):
        from matplotlib import rc_context  # noqa: PLC0415 - an extra

        with rc_context(_STYLE | {"font.family": families(), "axes.prop_cycle": cycler(color=_COLOURS)}):
            width = _LARGE_WIDTH_IN if is_large(figure) else _WIDTH_IN
            canvas = figure_class(figsize=(width, _height_in(figure)), layout="constrained")
            _draw(figure, canvas.add_subplot())
            target = io.BytesIO()
            metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
            canvas.savefig(target, format=kind, dpi=160, metadata=metadata)
    return target.getvalue()


@cache
def families() -> list[str]:
    """The usual font and those of the fallbacks that are installed: Matplotlib warns of any other."""
    from matplotlib import font_manager  # noqa: PLC0415 - an extra

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


@contextmanager
def _matplotlib() -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    try:
        from cycler import cycler  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure as Canvas  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidInput(
            "reports draw with Matplotlib, which is not installed: pip install 'labelmill[report]'"
        ) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a browser has the letters
        yield Canvas, cycler


def _height_in(figure: Figure) -> float:
    if isinstance(figure, Dots):
        return 0.9 + 0.2 * max(3, len(figure.labels))
    if isinstance(figure, Matrix):
        return 4.8 if not is_large(figure) else 1.2 + max(6.0, 0.082 * len(figure.rows))
    return 3.2


def _draw(figure: Figure, axes: Axes) -> None:
    if isinstance(figure, Dots):
        _draw_dots(figure, axes)
    elif isinstance(figure, Curves):
        _draw_curves(figure, axes)
    elif isinstance(figure, Histogram):
        _draw_histogram(figure, axes)
    else:
        _draw_matrix(figure, axes)


def _draw_dots(figure: Dots, axes: Axes) -> None:
    places = range(len(figure.labels))
    for marker, (name, shares) in zip("os^D", figure.series.items(), strict=False):
        axes.plot(list(shares), list(places), marker, markersize=4.5, label=_short(name), alpha=0.85)
    axes.set_yticks(list(places), [_short(label) for label in figure.labels], fontsize=9)
    axes.set_ylim(len(figure.labels) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share * 100:.3g} %")
    axes.set_xlabel(figure.axis)
    axes.grid(visible=True, axis="y", linewidth=0.4)
    if len(figure.series) > 1:
        axes.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(figure.series), frameon=False)


def _draw_curves(figure: Curves, axes: Axes) -> None:
    if figure.diagonal:
        axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="perfect")
    for marker, (name, points) in zip("os^D", figure.series.items(), strict=False):
        axes.plot(
            *zip(*points, strict=True), marker=marker if len(points) < 40 else None, markersize=4, label=_short(name)
        )
    if figure.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda *_: "")
    if figure.unit_axes:
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
    elif figure.y_most is not None:
        axes.set_ylim(top=figure.y_most)
    axes.set_xlabel(figure.axes[0])
    axes.set_ylabel(figure.axes[1])
    axes.grid(visible=True, linewidth=0.4)
    if len(figure.series) > 1 or figure.diagonal:
        axes.legend(fontsize=9)


def _draw_histogram(figure: Histogram, axes: Axes) -> None:
    width = 1 / len(figure.counts)
    axes.bar([width * at for at in range(len(figure.counts))], figure.counts, width * 0.94, align="edge")
    axes.set_xlim(0, 1)
    axes.set_xlabel(figure.axis)
    axes.set_ylabel("rows")


def _draw_matrix(figure: Matrix, axes: Axes) -> None:
    shares = [[count / max(1, sum(row)) for count in row] for row in figure.counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xlabel(figure.axes[1])
    axes.set_ylabel(figure.axes[0])
    if is_large(figure):
        _number_labels(figure, axes)
        return
    size = 9 if len(figure.rows) <= _WRITTEN_CELLS else 6
    axes.set_xticks(range(len(figure.columns)), [_short(name) for name in figure.columns], rotation=90, fontsize=size)
    axes.set_yticks(range(len(figure.rows)), [_short(name) for name in figure.rows], fontsize=size)
    if len(figure.rows) <= _WRITTEN_CELLS:
        for y, row in enumerate(figure.counts):
            for x, count in enumerate(row):
                if count:
                    colour = "white" if shares[y][x] > 0.5 else "black"
                    axes.text(x, y, str(count), ha="center", va="center", fontsize=8, color=colour)


def _number_labels(figure: Matrix, axes: Axes) -> None:
    """Rows have a number and their name; columns, in the same order, the numbers alone."""
    numbers = {name: number for number, name in enumerate(figure.columns, 1)}
    rows = [f"{_short(name)}  {numbers.get(name, '')}" for name in figure.rows]
    axes.set_yticks(range(len(rows)), rows, fontsize=5.5)
    axes.tick_params(axis="both", length=2, pad=1)
    axes.set_xlabel(f"{figure.axes[1]} (numbers as beside the rows)")
    places = [0, *range(_NUMBERED_EVERY - 1, len(figure.columns), _NUMBERED_EVERY)]
    for axis in (axes, axes.secondary_xaxis("top")):
        axis.set_xticks(places, [str(place + 1) for place in places], rotation=90, fontsize=5.5)
        axis.tick_params(axis="x", length=2, pad=1)
    nameless = [f"{number} {_short(name)}" for name, number in numbers.items() if name not in figure.rows]
    if nameless:
        axes.set_xlabel(f"{axes.get_xlabel()}; only answers: {', '.join(nameless[:3])}")
    for place in places:
        axes.axvline(place, color="#888888", linewidth=0.15)
        axes.axhline(place, color="#888888", linewidth=0.15)


def _short(label: str) -> str:
    line = " ".join(label.split())
    return line if len(line) <= _LABEL_CHARS else f"{line[: _LABEL_CHARS - 1]}\N{HORIZONTAL ELLIPSIS}"
