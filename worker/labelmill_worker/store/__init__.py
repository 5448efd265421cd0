"""Every SQL statement of the worker, by the table it is about. Knows nothing of Mistral or of tasks."""
