"""A disk that is full: of the data folder, which holds artifacts and SQLite."""

from __future__ import annotations

import contextlib
import os
import random
import resource

from rig import Rig

from faults import Heal, InjectedFault


def _fill(rig: Rig, rng: random.Random) -> Heal | None:
    rig.costs_in_flight(len(rig.workers))
    if not rig.mounted:
        return _limit_file_sizes(rig)
    leaves = rng.choice((0, 0, 20_000, 200_000))
    ballast = rig.data / "ballast"
    free = os.statvfs(rig.data).f_bavail * os.statvfs(rig.data).f_frsize
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - leaves))
    return lambda: ballast.unlink(missing_ok=True)


def _limit_file_sizes(rig: Rig) -> Heal:
    """Without root there is no small disk: the workers may write no more than the first bytes of any file."""
    limited = [worker.pid for worker in rig.workers if worker.pid is not None]

    def limit(soft: int) -> None:
        for pid in limited:
            with contextlib.suppress(OSError):
                hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    limit(4096)
    return lambda: limit(resource.RLIM_INFINITY)


FAULTS = (InjectedFault("disk full", _fill, (1.0, 4.0)),)
