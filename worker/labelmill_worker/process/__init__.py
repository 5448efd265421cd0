"""What the work must know of the process that it runs in: what this worker cannot do (`ability`), whether it shuts down
(`draining`), what delays it (`delays`), the slots for long work (`long_work`), returning work to the queue
(`requeue`)."""
