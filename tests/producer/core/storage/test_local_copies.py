"""The folder of local copies stays within its bound, whoever downloads at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from labelmill.core.storage.cache import FileCache

_BOUND, _SIZE = 100, 40


def _held(cache: FileCache) -> int:
    return sum(file.stat().st_size for file in cache.folder.iterdir())


def test_downloads_at_the_same_time_stay_within_the_bound(tmp_path: Path) -> None:
    together, go_on = threading.Barrier(6), threading.Event()

    def download(copy: BinaryIO) -> None:
        go_on.wait(30)
        copy.write(b"x" * _SIZE)

    def size() -> int:
        together.wait(30)
        return _SIZE

    def read(number: int) -> bytes | None:
        copy = FileCache(tmp_path / "cache", _BOUND).open(f"file {number}", size, download)
        if copy is None:
            refused.release()
            return None
        with copy:
            return copy.read()

    refused = threading.Semaphore(0)
    cache = FileCache(tmp_path / "cache", _BOUND)
    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read, number) for number in range(6)]
        try:
            for _ in range(4):  # two of them fit
                assert refused.acquire(timeout=30)
            assert _held(cache) <= _BOUND
        finally:
            go_on.set()
        copies = [reader.result() for reader in readers]
    assert [copy for copy in copies if copy is not None] == [b"x" * _SIZE] * 2
    assert _held(cache) == 2 * _SIZE


def test_a_download_that_fails_gives_its_room_back(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", _BOUND)

    def fail(_: BinaryIO) -> None:
        raise ConnectionError

    for _ in range(3):
        with pytest.raises(ConnectionError):
            cache.open("file", lambda: _BOUND, fail)

    def fill(copy: BinaryIO) -> None:
        copy.write(b"x" * _BOUND)

    copy = cache.open("file", lambda: _BOUND, fill)
    assert copy is not None
    copy.close()
    assert _held(cache) == _BOUND
