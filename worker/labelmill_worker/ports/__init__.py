"""What the work needs of Mistral, as protocols. `mistral/` holds the adapters, tests an in-memory one."""
