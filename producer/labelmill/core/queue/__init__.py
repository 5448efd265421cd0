"""The queue: Celery's configuration and the sending of messages (`sender`), the application that both sides use
(`application`), what keeps Redis from taking messages (`redis_faults`), and the checks of what comes in (`wire`)."""
