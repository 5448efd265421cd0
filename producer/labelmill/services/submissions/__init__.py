"""What several submissions share: idempotency keys, copies of sources, rows that were skipped, repeated ids."""
