"""What calls cost: tokens counted without a tokenizer, prices by model, and what a job comes to by both."""
