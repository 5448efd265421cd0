"""Whether what the commands of a local stack run is installed. They are listed in the base install too."""

from __future__ import annotations

from labelmill.contracts.errors import InvalidInput
from labelmill_worker.libraries import WORKER_LIBRARIES, missing_of

WORKERS = WORKER_LIBRARIES
EMULATOR = ("aiohttp", "sklearn")
FLOWER = (*WORKER_LIBRARIES, "flower")  #: It loads the workers' Celery application.


def require_local(command: str, *libraries: str) -> None:
    """Raises InvalidInput that names the extra to install: a library of the command is missing."""
    if missing := missing_of(dict.fromkeys(libraries)):
        raise InvalidInput(f'`labelmill {command}` needs {", ".join(missing)}: pip install "labelmill[local]"')
