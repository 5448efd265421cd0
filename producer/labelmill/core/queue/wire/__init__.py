"""Incoming messages: each is checked, and rebuilt from the checked parts, before Celery sees it.

`frame.py` reads the parts that all messages share; `tasks.py`, `control.py` and `events.py` check one kind each. Only
`transport.py` depends on kombu: it is the transport that the applications of workers, beat, Flower and
`labelmill doctor` are configured with (`QueueApp.make`). Producers do not need it: they receive no messages.
"""
