"""Reports as Chromium shows them: on a phone, on a desk and on paper; whatever texts and labels hold.

Skipped where there is no Chromium. It is driven by its own debugging protocol.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

from labelmill.report.page import page_of
from labelmill.report.parts import Dots, Grid, Heading, Histogram, Matrix, Note, Report, facts

_PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(_PROGRAM is None, reason="no Chromium on this machine")

EVIL = "</script><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>"
LABELS = [f"some_intent_or_other/{number}" for number in range(75)] + [EVIL, "L" * 300]
TEXT = "\N{ARABIC LETTER MEEM}\N{ARABIC LETTER REH} \N{CJK UNIFIED IDEOGRAPH-65E5} " + EVIL + " words" * 60
REPORT = Report(
    "Evaluation: m@1",
    "eval_0123456789abcdef0123456789ab, completed",
    [
        facts({"model": "m@1", "rows": 1234}),
        Heading(f"Target {EVIL}"),
        Note(TEXT, "warning"),
        Matrix(
            "confusion",
            "Confusion",
            LABELS,
            LABELS,
            [[int(x == y) for x in range(77)] for y in range(77)],
            ("label", "answer"),
        ),
        Histogram("scores", "Best scores", list(range(20)), "best score"),
        Dots("labels", "Labels", LABELS[-40:], {"labels": [0.02] * 40, "answers": [0.03] * 40}, "share of rows"),
        Grid(("label", "support", "precision", "recall", "F1"), [(label, 1234, 0.5, 1.0, 0.25) for label in LABELS]),
        Grid(("label", "was given", "rows"), [(LABELS[0], LABELS[1], 12)], "Most confused"),
        Grid(
            ("row", "label", "answer", "score", "text"),
            [(12_345, LABELS[0], label, 0.9, TEXT) for label in LABELS],
            "Most confident mistakes",
            frozenset({4}),
        ),
    ],
)

MEASURE = """(() => {
    const box = one => { const b = one.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] };
    const all = name => [...document.querySelectorAll(name)];
    return {
        width: document.documentElement.scrollWidth,
        boxes: all("body > *").map(box), figures: all("figure").map(box), svgs: all("figure svg").map(box),
        texts: all("td.text").map(box), scripts: document.scripts.length, images: document.images.length,
        numbers: all("table:not(.texts):not(.facts) td.number:last-child").map(box),
    }
})()"""


class Chromium:
    """A browser that has opened a page, seen at some size."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look(self, page: Path, width: int, media: str = "screen") -> tuple[dict[str, Any], list[str]]:
        """What `MEASURE` finds, and everything the page asked for or popped up."""
        return asyncio.run(asyncio.wait_for(self._look(page, width, media), 60))

    async def _look(self, page: Path, width: int, media: str) -> tuple[dict[str, Any], list[str]]:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{self.address}/json/list") as reply:
                (target,) = [one for one in await reply.json() if one["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                protocol = _Protocol(socket)
                for domain in ("Page", "Network", "Runtime"):
                    await protocol.call(f"{domain}.enable")
                await protocol.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=900,
                    deviceScaleFactor=1,
                    mobile=width < 600,
                )
                await protocol.call("Emulation.setEmulatedMedia", media=media)
                await protocol.call("Page.navigate", url=page.as_uri())
                await protocol.until("Page.loadEventFired")
                found = await protocol.call("Runtime.evaluate", expression=MEASURE, returnByValue=True)
                return found["result"]["value"], protocol.events

    def __enter__(self) -> Self:
        assert _PROGRAM is not None
        self._process = subprocess.Popen(
            [
                _PROGRAM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-port=0",
                "--no-first-run",
                "--remote-allow-origins=*",
                f"--user-data-dir={self._folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "listening on ws://" in line:
                self.address = "http://" + line.split("ws://")[1].split("/")[0]
                return self
        pytest.fail("Chromium did not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)


class _Protocol:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0
        self._seen: list[str] = []
        self.events: list[str] = []  #: URLs that were asked for, dialogs, errors.

    async def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while (message := await self._receive()).get("id") != self._number:
            pass
        return message["result"]

    async def until(self, event: str) -> None:
        while event not in self._seen:
            await self._receive()

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json()
        method, parameters = message.get("method", ""), message.get("params", {})
        self._seen.append(method)
        if method == "Network.requestWillBeSent":
            self.events.append(parameters["request"]["url"][:80])
        elif method in ("Page.javascriptDialogOpening", "Runtime.exceptionThrown"):
            self.events.append(method)
        return message


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_of(REPORT), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def overlap(boxes: list[list[float]]) -> list[tuple[list[float], list[float]]]:
    """Pairs of boxes that lie over each other by more than a pixel."""
    return [
        (one, other)
        for at, one in enumerate(boxes)
        for other in boxes[at + 1 :]
        if min(one[2], other[2]) - max(one[0], other[0]) > 1 and min(one[3], other[3]) - max(one[1], other[1]) > 1
    ]


@pytest.mark.parametrize(("width", "media"), [(390, "screen"), (1280, "screen"), (718, "print")])
def test_a_page_fits_its_medium(chromium: Chromium, page: Path, width: int, media: str) -> None:
    found, _ = chromium.look(page, width, media)
    assert found["width"] <= width
    assert overlap(found["boxes"]) == []
    assert overlap(found["figures"]) == []
    assert len(found["figures"]) == 3
    assert max(right for _, _, right, _ in found["texts"]) <= width  # a text is read without scrolling
    assert max(right for _, _, right, _ in found["numbers"]) <= width
    if media == "print":
        a_page_px = 27.7 / 2.54 * 96  # A4 without its margins
        assert max(bottom - top for _, top, _, bottom in found["figures"]) < a_page_px


def test_a_page_loads_and_runs_nothing(chromium: Chromium, page: Path) -> None:
    found, events = chromium.look(page, 1280)
    assert [one for one in events if not one.startswith(("file://", "data:"))] == []
    assert (found["scripts"], found["images"]) == (0, 0)
