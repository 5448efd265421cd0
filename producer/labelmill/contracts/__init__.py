"""What producer and worker agree on: messages, states, errors, settings, label schema; and what both do alike with the
database (`tables`, `migrations`, `database`), a batch's chunks (`chunks`), input files (`readers`), prices (`money`).

Nothing here imports the producer, the worker or ops. Importing any module of this folder connects to nothing.
"""
