"""Code that producer and worker share: settings, the database, the queue, files, input formats, chunks, prices.

Imports the contracts alone. Importing a module of this folder connects to nothing.
"""
