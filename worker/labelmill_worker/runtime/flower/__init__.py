"""Flower as `celery -A labelmill_worker.app flower` runs it, from any folder.

`flowerconfig.py` is its configuration (`ops/flower/flowerconfig.py` is a link to it), `access` says who may be let in.
"""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import dotenv_values

CONFIG = Path(__file__).with_name("flowerconfig.py")
_PREFIX = "FLOWER_"


def prepare_flower() -> None:
    """Have Flower load `CONFIG`, unless FLOWER_CONF or `--conf` names another file, and hear of FLOWER_ variables in
    `.env`. An empty variable counts as not set, as with Labelmill's own.

    Flower reads its environment after it has imported the application; to other processes it means nothing."""
    for name in [name for name, value in os.environ.items() if name.startswith(_PREFIX) and not value]:
        del os.environ[name]
    variables = {name: value for name, value in dotenv_values(".env").items() if value and name.startswith(_PREFIX)}
    for name, value in {**variables, "FLOWER_CONF": variables.get("FLOWER_CONF") or str(CONFIG)}.items():
        os.environ.setdefault(name, value)
