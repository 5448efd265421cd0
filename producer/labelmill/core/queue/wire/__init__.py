"""What comes over Redis: checked, and written anew from what was checked, before Celery sees any of it.

`frame.py` reads what all messages have in common; `tasks.py`, `control.py` and `events.py` know one kind each. Only
`transport.py` knows kombu: it is the transport of workers, beat and Flower (`labelmill_worker.app` asks for it) and of
`labelmill doctor` (`queue.py` does).
"""
