"""The methods of inner models, which jobs ask for themselves; a model's version has one of `services/trainings.py`."""

VECTORS = "vectors"  #: They embed datasets and make no predictions.
REFUSED_FIELDS = "refused_fields"  #: They ask nothing, and keep which optional fields a model's server refuses.
LOGPROBS = "logprobs"  #: They ask once whether a chat model's server tells the log-probabilities of tokens.
