"""The client's half of the measurement of one text: classify it, wait, read its result, again and again.

    python ops/bench/latency.py MODEL COUNT

Prints one JSON line with the seconds of each text. The database and the broker come from the environment.
"""

from __future__ import annotations

import sys
import time

import orjson

from labelmill import Client

_UNMEASURED = 5  #: Texts before the first one that counts: client and workers connect to what they need.


def latencies_s(model: str, count: int) -> list[float]:
    """Seconds from the call of `classify` until the result is read, for each of `count` texts."""
    found = []
    with Client() as client:
        for number in range(_UNMEASURED + count):
            start = time.perf_counter()
            batch = client.classify([f"wake me at six, {number}"], model)
            batch.wait()
            (row,) = batch.results()
            found.append(time.perf_counter() - start)
            if row["error"] is not None:
                raise RuntimeError(f"{batch.id}: {row['error']}")
    return found[_UNMEASURED:]


if __name__ == "__main__":
    print(orjson.dumps({"seconds": latencies_s(sys.argv[1], int(sys.argv[2]))}).decode())
