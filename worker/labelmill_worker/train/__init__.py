"""Trainings, as a series of short polls.

`poller` is the entry point: it claims a training, takes its next steps and says when to poll again. `steps` finds the
function for its method (`embedding`, `prompt`, `factory/`) and state; each gets a `step_context.StepContext`. Calls go
poller → steps → methods → `heads/`, the port (`ports.control_plane`) and the store.

Every step can be repeated after a crash. A training in which nothing changes for 24 hours counts as failed
(`polling_schedule.NO_CHANGE_LIMIT_S`).
"""
