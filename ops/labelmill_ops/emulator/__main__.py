"""`python -m labelmill_ops.emulator`."""

import typer

from labelmill_ops.emulator.command import emulator

if __name__ == "__main__":
    typer.run(emulator)
