"""Models: finding one by what a person writes (`resolving`), for a job (`asked`), listing them and the origin of each
(`listing`), promoting, archiving and deleting versions (`versions`), their aliases, notes and thresholds
(`settings_of`), sending the messages of remote actions (`at_mistral`).
"""

from labelmill.services.models.asked import asked_model
from labelmill.services.models.at_mistral import send_remote_action
from labelmill.services.models.listing import lineage, list_models
from labelmill.services.models.resolving import find_version, ref_of, register, resolve_model
from labelmill.services.models.settings_of import (
    clear_thresholds,
    remove_alias,
    set_alias,
    set_note,
    set_thresholds,
)
from labelmill.services.models.versions import archive, delete, promote, rollback

__all__ = [
    "archive",
    "asked_model",
    "clear_thresholds",
    "delete",
    "find_version",
    "lineage",
    "list_models",
    "promote",
    "ref_of",
    "register",
    "remove_alias",
    "resolve_model",
    "rollback",
    "send_remote_action",
    "set_alias",
    "set_note",
    "set_thresholds",
]
