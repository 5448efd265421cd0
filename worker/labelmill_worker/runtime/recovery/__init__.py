"""What makes Redis a hint: work that SQL says is runnable and that no message will bring is sent again.

`timer` runs in each worker process and decides when; `sweep` is what is done then; `step` ties the timer to Celery's
worker; `waiting` reads what is on the queues.
"""
