"""`labelmill rehearse`: a bad day at Mistral, on a running emulator."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from labelmill.cli.context import messages, print_json, settings, wants_json
from labelmill.cli.options import AsJson
from labelmill.contracts.control_characters import visible
from labelmill.contracts.errors import InvalidInput, RemoteUnavailable
from labelmill.core.addresses.loopback import is_loopback
from labelmill_ops.emulator.command import check_faults
from labelmill_ops.emulator.fault_kinds import CALL_NAMES, KINDS, described_kinds

_TIMEOUT_S = 10
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine


def rehearse(
    fault: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND[@CALL][xTIMES][:PROBABILITY][:PARAMETER]...",
            callback=check_faults,
            show_default=False,
            help="Faults to show from now on, in place of the earlier ones; none: tell what is on.",
        ),
    ] = None,
    *,
    seed: Annotated[int, typer.Option(help="Seed of the dice that say when a fault strikes.")] = 0,
    for_s: Annotated[float | None, typer.Option("--for", min=0, help="End them after so many seconds.")] = None,
    off: Annotated[bool, typer.Option("--off", help="End all faults.")] = False,
    show_kinds: Annotated[bool, typer.Option("--list", help="Show the kinds of faults and the calls.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell the running emulator what to do wrong, so that you see how your jobs come through it.

    `labelmill rehearse 502:0.2 slow@classify:0.05:30 --for 60` is a bad minute: every fifth request gets a 502, every
    twentieth classification drips in over 30 s.
    """
    if show_kinds and wants_json(as_json):
        print_json({"faults": {name: kind.summary for name, kind in KINDS.items()}, "calls": list(CALL_NAMES)})
        return
    if show_kinds:
        typer.echo(f"{described_kinds()}\n\ncalls: {', '.join(CALL_NAMES)}")
        return
    if fault and off:
        raise InvalidInput("name faults or say --off, not both")
    if for_s is not None and not fault:
        raise InvalidInput("--for needs faults")
    address = _emulators_address(settings().mistral_url)
    armed = _ask(address, "PUT", {"faults": fault or [], "seed": seed}) if fault or off else _ask(address, "GET")
    if for_s is not None:
        messages().print(f"{', '.join(fault or ())} for {for_s:g} s; Ctrl-C ends it at once")
        try:
            time.sleep(for_s)
        except KeyboardInterrupt:
            messages().print("ended early")
        armed = _end(address)
    if wants_json(as_json):
        print_json(armed)
    else:
        _tell(armed)


def _end(address: str) -> dict[str, Any]:
    """End all faults. Returns what had struck by then."""
    deadline = time.monotonic() + 60  # `refused` shuts the control endpoint for a while too
    while True:
        try:
            struck = _ask(address, "GET")
            _ask(address, "PUT", {"faults": []})
        except RemoteUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return struck


def _tell(armed: dict[str, Any]) -> None:
    if not armed["faults"]:
        typer.echo("no faults are on")
    for one in armed["faults"]:
        typer.echo(visible(f"{one['fault']}  struck {one['struck']} times"))


def _emulators_address(mistral_url: str) -> str:
    """Raises InvalidInput unless the address is one where an emulator of this machine can be."""
    if not is_loopback(urlsplit(mistral_url).hostname):
        raise InvalidInput(
            f"{mistral_url} is not an emulator on this machine: run `labelmill up --emulator` in this folder"
        )
    return f"{mistral_url.rstrip('/')}/_control/faults"


def _ask(address: str, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Raises RemoteUnavailable when no emulator answers there."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, content, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - checked
    try:
        with _DIRECT.open(request, timeout=_TIMEOUT_S) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError) as error:
        raise RemoteUnavailable(
            f"no emulator answers at {address}: run `labelmill up --emulator` in this folder"
        ) from error
