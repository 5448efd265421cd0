"""Shared by submissions: idempotency keys, copies of sources, skipped rows, repeated ids, sending messages."""
