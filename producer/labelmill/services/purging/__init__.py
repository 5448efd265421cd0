"""Retention: what `labelmill purge` deletes. `selection` says which jobs may go, `rows` deletes theirs, `files` deletes
what lies in the data folder, `purge` does all of it in an order in which any step may be the last one before a kill."""

from labelmill.services.purging.purge import Purged, PurgeRequest, purge

__all__ = ["PurgeRequest", "Purged", "purge"]
