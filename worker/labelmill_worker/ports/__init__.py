"""What the work needs of Mistral, as protocols: `inference.py` for the calls that carry texts, `control_plane.py` for
files, fine-tuning jobs and models, `batch_jobs.py` for calls that are answered hours later. `mistral/` holds the
adapters, tests one in memory."""
