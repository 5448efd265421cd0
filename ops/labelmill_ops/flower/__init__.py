"""`labelmill flower`. Flower's configuration is the worker's: `labelmill_worker/runtime/flower/flowerconfig.py`."""
