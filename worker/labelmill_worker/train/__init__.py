"""Trainings, as a row of short looks.

`watch` is the way in: it claims a training, takes its next steps and says when to look again. `steps` finds the
function for its method (`embedding`, `prompt`, `factory/`) and state; each is handed a `look.Look`. Calls go watch →
steps → methods → `heads/`, the port (`mistral.port`) and the store.

Every step can be repeated after a crash. A training in which nothing changes for 24 hours counts as failed
(`pace.NO_CHANGE_LIMIT_S`).
"""
