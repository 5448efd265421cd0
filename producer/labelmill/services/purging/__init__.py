"""Retention: what `labelmill purge` deletes. `selection` selects the jobs, `rows` deletes their rows, `files` their
files in the data folder, and `purge` runs these steps in an order that may be interrupted after any of them."""

from labelmill.services.purging.purge import Purged, PurgeRequest, purge

__all__ = ["PurgeRequest", "Purged", "purge"]
