"""The worker's application, whose preparations go on as long as the file exists that TEST_HOLD names."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from labelmill_worker.app import app
from labelmill_worker.prepare import preparation
from labelmill_worker.prepare.dataset import prepare_dataset

_prepare: Any = prepare_dataset


def _held(*arguments: Any, on_progress: Any, **options: Any) -> Any:
    while Path(os.environ["TEST_HOLD"]).exists():
        on_progress(0)
        time.sleep(0.05)
    return _prepare(*arguments, on_progress=on_progress, **options)


vars(preparation)["prepare_dataset"] = _held

__all__ = ["app"]
