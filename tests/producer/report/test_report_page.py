"""Pages load nothing and let no text of a user be more than text."""

from __future__ import annotations

import json
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib import font_manager
from s3_server import BUCKET, S3Server

from labelmill.contracts.errors import InvalidInput
from labelmill.core.storage.remote import RemoteFiles
from labelmill.report.drawing import families, png_of
from labelmill.report.page import page_of
from labelmill.report.parts import Curves, Dots, Grid, Heading, Histogram, Matrix, Note, Report, facts
from labelmill.report.writing import write_report
from labelmill.services.results.formats import output_of

EVIL = "<script>alert(1)</script><img src=https://evil.example/x onerror=a()>\"'&$x_y$ 日本 \x00"
FIGURES = [
    Dots("evil/../name", EVIL, [EVIL, "b"], {EVIL: [0.2, 0.8], "test": [0.3, 0.7]}, EVIL),
    Curves("loss", EVIL, {EVIL: [(1, 0.5), (2, 0.4)]}, (EVIL, EVIL), log_x=True),
    Curves("reliability", "Reliability", {"scores": [(0.1, 0.2)]}, ("x", "y"), diagonal=True, unit_axes=True),
    Histogram("scores", EVIL, [0, 3, 9], EVIL),
    Matrix("confusion", EVIL, [EVIL, "b"], [EVIL, "b"], [[3, 1], [0, 0]], (EVIL, EVIL)),
    Matrix("large", "Large", *[[str(n) for n in range(60)]] * 2, [[1] * 60] * 60, ("label", "answer")),
]
REPORT = Report(
    EVIL,
    EVIL,
    [
        Heading(EVIL),
        Note(EVIL, "bad"),
        facts({EVIL: EVIL, "unknown": None, "zero": 0}),
        *FIGURES,
        Grid((EVIL, "n"), [(EVIL, 1234.5), (None, None)], EVIL, frozenset({0})),
    ],
)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(REPORT)


def test_no_tag_or_attribute_comes_from_a_text(page: str) -> None:
    parser = Tags()
    parser.feed(page)
    names = {tag for tag, _ in parser.tags}
    assert names & {"script", "img", "iframe", "link", "object", "a"} == set()
    assert names >= {"svg", "table", "figure", "h2"}
    assert not [attributes for _, attributes in parser.tags if any(name.startswith("on") for name in attributes)]
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 10


def test_nothing_is_loaded(page: str) -> None:
    parser = Tags()
    parser.feed(page)
    links = [
        value or ""
        for _, attributes in parser.tags
        for name, value in attributes.items()
        if name in {"href", "xlink:href", "src", "srcset"} or name.startswith("xmlns")
    ]
    assert all(link.startswith(("#", "data:image/png")) for link in links)
    assert "url(http" not in page
    assert "@import" not in page


def test_figures_scale_to_the_screen(page: str) -> None:
    parser = Tags()
    parser.feed(page)
    drawn = [attributes for tag, attributes in parser.tags if tag == "svg"]
    assert len(drawn) == len(FIGURES)
    assert all("viewbox" in one and "width" not in one for one in drawn)
    assert 'name="viewport"' in page


def test_what_is_unknown_is_left_out_and_zero_is_not(page: str) -> None:
    assert "unknown" not in page
    assert "<tr><th>zero</th><td>0</td></tr>" in page


def test_an_empty_cell_has_no_heading_of_its_own_on_a_phone() -> None:
    page = page_of(Report("t", "s", [Grid(("name", "interval", "text"), [("a", None, "b")], "", frozenset({2}))]))
    assert page.count("data-name=") == 2
    assert 'data-name="interval"' not in page


def test_assets_are_a_png_and_a_json_of_each_figure(tmp_path: Path) -> None:
    written = write_report(REPORT, tmp_path / "r.html", tmp_path / "new" / "assets")
    assets = written[1:]
    assert len(assets) == 2 * len(FIGURES)
    assert all(path.parent == tmp_path / "new" / "assets" for path in assets)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in assets if path.suffix == ".png")
    found = [json.loads(path.read_bytes()) for path in assets if path.suffix == ".json"]
    assert [one["kind"] for one in found] == ["dots", "curves", "curves", "histogram", "matrix", "matrix"]
    assert found[3]["counts"] == [0, 3, 9]


def test_letters_of_a_font_that_is_not_installed_bring_no_warning() -> None:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    assert set(families()) <= installed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png_of(Dots("labels", "Labels", ["\u65e5\u672c", "\U0001f600", "a"], {"rows": [0.1, 0.2, 0.3]}, "share"))


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file or directory"):
        write_report(Report("t", "s", []), tmp_path / "missing" / "r.html")


def test_a_page_is_written_to_s3_too(s3_server: S3Server) -> None:
    output = output_of(f"s3://{BUCKET}/pages/r.html")
    assert write_report(Report("t", "s", []), output, remote=RemoteFiles(s3_server.options())) == [output]
    assert s3_server.get("pages/r.html").startswith(b"<!DOCTYPE html>")


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InvalidInput, match=r"pip install 'labelmill\[report\]'"):
        page_of(REPORT)


def test_a_logarithmic_axis_is_written_in_plain_numbers() -> None:
    figure = Curves("c", "C", {"loss": [(0.5, 2.0), (2048.0, 1.0)]}, ("C", "loss"), log_x=True)
    page = page_of(Report("t", "s", [figure]))
    assert "mathdefault" not in page
    assert ">1000</text>" in page
