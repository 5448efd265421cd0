"""The worker: Celery tasks that prepare, train, classify and evaluate. Calls go tasks → work → ports and store."""
