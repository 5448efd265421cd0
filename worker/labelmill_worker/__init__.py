"""The worker: Celery tasks that prepare, train, classify and evaluate. Calls go runtime → work → ports and store."""
