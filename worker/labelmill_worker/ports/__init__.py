"""What the work needs of Mistral, as protocols: `inference.py` for the calls that carry texts, `control_plane.py` for
files, jobs and models. `mistral/` holds the adapters, tests one in memory."""
