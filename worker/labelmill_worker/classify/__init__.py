"""The bulk engine: a chunk of texts in, checked answers in SQL.

`work.py` is the flow of one chunk, in a task's thread: claim → plan → send → write as answers come → close.
`sending.py` runs on the process's one event loop and talks to Mistral; `planning.py` and `answers.py` are pure.
"""
