"""The command line: one file per group of commands, each with a `register(app)`; `main` puts them together.

Data goes to stdout, progress and messages to stderr.
"""
