"""Shared by submissions: idempotency keys, metadata, copies of sources, skipped rows, repeated ids, messages."""
