"""The cost of calls: tokens counted without a tokenizer, prices by model, and a job's cost computed from both."""
