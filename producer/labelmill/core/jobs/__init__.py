"""Rules about jobs that producer and worker share: which chunks get a message (`dispatch`), what holds work back
(`delays`), the batches that belong to another job (`inner_batches`)."""
