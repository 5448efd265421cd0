"""The worker's process: tasks, wiring, recovery, shutdown, logs, health. Calls go from here to the work, never back."""
