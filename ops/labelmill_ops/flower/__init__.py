"""`labelmill flower`. Flower's configuration is the worker's: `labelmill_worker/flower/flowerconfig.py`."""
