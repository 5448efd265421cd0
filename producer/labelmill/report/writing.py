"""A report on the disk: the page, and its figures as files of their own."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import orjson

from labelmill.contracts.errors import InvalidInput
from labelmill.core.storage.remote import RemoteFiles
from labelmill.report.drawing import png_of
from labelmill.report.page import page_of
from labelmill.report.parts import Report
from labelmill.services.results.export import replacing_output
from labelmill.services.results.formats import Output

_UNSAFE = re.compile(r"[^\w.-]+")


def write_report(
    report: Report, output: Output, assets: Path | None = None, remote: RemoteFiles | None = None
) -> list[Output]:
    """Write the page to `output`, and a PNG and a JSON of every figure into `assets`. Returns the files written.

    Raises InvalidInput where nothing can be written, or Matplotlib is missing; StorageUnavailable, StorageRefused for a
    page in S3.
    """
    page = page_of(report)
    written = [output]
    try:
        _write(output, page.encode(), remote)
        if assets is not None:
            assets.mkdir(parents=True, exist_ok=True)
            for number, figure in enumerate(report.figures(), 1):
                stem = assets / f"{number:02d}-{_UNSAFE.sub('_', figure.name)[:80]}"
                png, data = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.json")
                _write(png, png_of(figure))
                _write(data, orjson.dumps({"kind": type(figure).__name__.lower()} | asdict(figure)))
                written += [png, data]
    except OSError as error:
        raise InvalidInput(f"{error.filename or output}: {error.strerror}") from error
    return written


def _write(output: Output, content: bytes, remote: RemoteFiles | None = None) -> None:
    with replacing_output(output, remote) as file:
        file.write(content)
