"""Batches that run in Mistral's Batch API. `poller.py` takes the next step of a remote batch, `steps.py` says what each
step does, `stopping.py` what it does once the batch ends, and `remote_job.py` looks at the job: `packing.py` chooses
rows, `calls.py` makes their calls, `results.py` records what came back, and `verdicts.py` decides what becomes of what
did not. `schedule.py` and `custom_ids.py` are pure."""
