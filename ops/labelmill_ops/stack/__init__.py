"""The local stack: every process of Labelmill under one supervisor in the foreground.

`command` (the CLI) → `local` (which processes, in what order, when they are ready) → `supervisor` (keeps them alive,
drains them) → `child` (one process) and `guard` (ends them all when the supervisor itself is killed).
"""
