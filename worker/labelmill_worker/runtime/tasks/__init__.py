"""One thin file per message: decode, call the work, record. `registry` hands them to Celery."""
