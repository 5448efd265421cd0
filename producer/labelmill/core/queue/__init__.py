"""The queue: Celery's configuration and the sending of messages (`sender`), the application that both sides use
(`application`), why Redis refuses messages (`redis_faults`), and the checks of incoming messages (`wire`)."""
