"""`python -m labelmill`."""

from labelmill.cli.main import run

run()
