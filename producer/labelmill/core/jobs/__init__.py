"""Rules about jobs that producer and worker share: every write of a state (`transitions`, `chunk_transitions`) and of
the history (`events`), leases (`leases`), the table of each kind (`tables`), which chunks get a message (`dispatch`),
what holds work back (`delays`), the batches that belong to another job (`inner_batches`)."""
