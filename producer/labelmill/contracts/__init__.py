"""What producer and worker agree on: messages, states, tables, errors, settings, label schema, chunk codec.

Nothing here imports the producer, the worker or ops. Importing any module of this folder connects to nothing.
"""
