"""`labelmill flower`: Flower in the foreground."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from labelmill.cli.context import print_json, settings, wants_json
from labelmill.cli.options import AsJson
from labelmill.contracts.errors import InvalidInput
from labelmill_ops.local_install import FLOWER, require_local

USUAL_PORT = 5555
AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def flower(
    *,
    host: Annotated[
        str, typer.Option(envvar="FLOWER_ADDRESS", help="Address to listen on; off this machine a password is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="FLOWER_PORT", min=1, max=65535, help="Port to listen on.")] = USUAL_PORT,
    as_json: AsJson = False,
) -> None:
    """Show the queue, the workers and the tasks in a browser, until Ctrl-C.

    On 127.0.0.1 pages need no password. Elsewhere Flower starts only with FLOWER_BASIC_AUTH=user:password. Other
    FLOWER_ variables set Flower's own options. `labelmill up` starts a Flower of its own.
    """
    require_local("flower", *FLOWER)
    _check_free(host, port)
    loaded = settings()
    # by the environment: a command line can be read by every user of the machine. Flower needs no key and no database
    hidden = {"MISTRAL_API_KEY", "WANDB_API_KEY", "LABELMILL_DATABASE_URL", *AWS_KEYS}
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "LABELMILL_BROKER_URL": loaded.broker_url,
        "LABELMILL_DATA_DIR": str(loaded.data_path),
        "FLOWER_ADDRESS": host,
        "FLOWER_PORT": str(port),
    }
    command = [sys.executable, "-m", "celery", "-A", "labelmill_worker.app", "flower"]
    if wants_json(as_json):
        print_json({"url": f"http://{host}:{port}"})
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell: Ctrl-C and signals reach Flower itself


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidInput(
            f"Flower cannot listen on {host}:{port} ({reason}): choose another --host or --port"
        ) from error
