"""Documents: what `--json` prints and the Python client returns. Each has a type, from which `docs/schema/` is made.

They are dictionaries with fixed keys, in this order. `parts` has what several share, `jobs` the status of each kind of
job and the list of jobs, `datasets`, `models` and `comparison` the rest; `schema` makes JSON schemas of them.

What workers have stored as JSON, such as metrics, may hold more than its type says: a newer worker may report more.
"""
