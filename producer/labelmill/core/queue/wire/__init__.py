"""What comes over Redis: checked, and written anew from what was checked, before Celery sees any of it.

`frame.py` reads what all messages have in common; `tasks.py`, `control.py` and `events.py` know one kind each. Only
`transport.py` knows kombu: it is the transport that the applications of workers, beat, Flower and `labelmill doctor`
are configured with (`QueueApp.make`). Producers do without: they receive nothing.
"""
