"""Classifying: a chunk of texts in, checked answers in SQL.

`chunk_run.py` is the flow of one chunk, in a task's thread: claim → plan → send → record → close. `sender.py` runs on
the process's one event loop, `admission.py` lets each request start, `recorder.py` writes what was answered.
`strategies/` has a file for each kind of call, `models/` what a model version keeps in files. `planning.py` and
`answers.py` are pure.
"""
