"""What travels between producer and worker, or is stored: messages, specifications, states, errors, ids, labels.

No I/O: nothing here reads a file, an environment variable or a database, or imports another part of the product.
"""
