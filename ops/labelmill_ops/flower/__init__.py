"""Flower's configuration file, shipped with the package. `ops/flower/flowerconfig.py` is a link to the same file."""

from pathlib import Path

CONFIG = Path(__file__).with_name("flowerconfig.py")  #: For `flower --conf`.
