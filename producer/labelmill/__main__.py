"""The command `labelmill`, also as `python -m labelmill`."""

import sys

from labelmill import __version__


def run() -> None:
    """Run the command. Its version alone is told without loading the commands, which takes half a second."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"labelmill {__version__}\n")
        return
    try:
        from labelmill.cli.main import run as run_command  # noqa: PLC0415 - see above

        run_command()
    except KeyboardInterrupt:
        sys.exit(130)  # while commands are imported, or their output is flushed; Python would print a traceback


if __name__ == "__main__":
    run()
