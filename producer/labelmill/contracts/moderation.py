"""Moderation models of Mistral's: they are asked by their ids, and need no training."""

MODERATION = "moderation"  #: The method of their versions.
MODERATION_TARGET = "moderation"  #: Several labels, Mistral's categories, may hold.
MODERATION_PREFIX = "mistral-moderation-"  #: Begins their ids.
