"""Rules about jobs that producer and worker share: every write of a state (`transitions`, `chunk_transitions`) and of
an event (`events`), leases (`leases`), the table of each kind (`tables`), which chunks get a message (`dispatch`),
reasons for delays (`delays`), the batches that belong to another job (`inner_batches`)."""
