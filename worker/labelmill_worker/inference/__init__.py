"""Classifying: a chunk of texts in, checked answers in SQL.

| file | what it does |
| --- | --- |
| `chunk_run.py` | the flow of one chunk, in a task's thread; `claiming.py` finds the chunk, `chunk_end.py` closes it |
| `strategies/`, `models/` | how a model is asked, a file for each kind of call; what a version keeps in files. Pure |
| `planning.py`, `unanswered_rows.py`, `answers.py`, `chat_replies.py`, `vectors.py`, `tally.py` | pure steps |
| `inference_runtime.py` | what the chunks of a process share, the event loop among them |
| `sender.py`, `paid_calls.py`, `unused_vectors.py` | send requests, and a call once |
| `retry_policy.py`, `bisection.py` | when a request is sent again; which row of it is bad |
| `after_429.py`, `model_names.py` | what a 429 means for its request; by which names limits bind a model |
| `admission.py`, `sending_window.py` | which request starts next, and until when |
| `outcomes.py` | what can come of a request |
| `recorder.py` | the thread that writes: `chunk_record.py` keeps what came of a claim, `entry_writer.py` commits |
"""
