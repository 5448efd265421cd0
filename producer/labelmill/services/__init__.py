"""Everything that a caller may ask for, a module or a folder for each kind of thing: `datasets`, `trainings`,
`batches`, `evaluations`, `models`, `jobs`, `results`, `purging`. The command line and the Python client translate to
it."""
