"""Chunks of a batch: cutting, writing and reading them.

`writer` cuts rows into chunks and writes them; `distinct` finds the texts that repeat earlier ones; `encoding` turns a
cut chunk into the bytes that are stored; `codec` defines their format and decodes it.
"""
