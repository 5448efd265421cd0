"""The command line's names of the fields of requests: the only place where an error's field becomes an option."""

from __future__ import annotations

from collections.abc import Mapping

from labelmill.contracts.errors import LabelmillError
from labelmill.contracts.field_names import Notice

#: Field → option, or the metavar of an argument.
OPTION_OF: Mapping[str, str] = {
    # sources, and how they are read
    "source": "SOURCE",
    "text": "--text",
    "id_column": "--id",
    "encoding": "--encoding",
    "delimiter": "--delimiter",
    "quoting": "--quoting",
    "on_bad_row": "--on-bad-row",
    "format": "--format",
    # prepare
    "name": "NAME",
    "targets": "--target",
    "where": "--where",
    "split": "--split",
    "seed": "--seed",
    "dedupe": "--dedupe",
    "separator": "--separator",
    "min_per_label": "--min-per-label",
    "max_per_label": "--max-per-label",
    # train
    "dataset": "--dataset",
    "method": "--method",
    "max_cost": "--max-cost",
    "yes": "--yes",
    "base_model": "--model",
    "steps": "--steps",
    "learning_rate": "--learning-rate",
    "wandb_project": "--wandb-project",
    "suffix": "--suffix",
    "target_weights": "--target-weight",
    "descriptions": "--label-description",
    "shots": "--shots",
    "shot_selection": "--shot-selection",
    "texts_per_prompt": "--texts-per-prompt",
    "candidates": "--candidates",
    "optimize": "--optimize",
    "target_precision": "--target-precision",
    # every submission
    "idempotency_key": "--idempotency-key",
    "metadata": "--metadata",
    # classify, evaluate, compare
    "model": "--model",
    "models": "REF",
    "mode": "--mode",
    "deadline": "--deadline",
    "priority": "--priority",
    "thresholds": "--threshold",
    "multi": "--multi",
    "chats": "--chats",
    "cache": "--cache",
    "calibrate": "--calibrate",
    "level": "--level",
    "margin": "--margin",
    # jobs and their rows
    "job_id": "ID",
    "kind": "--kind",
    "state": "--state",
    "limit": "--limit",
    "after": "--after",
    "only": "--only",
    "output": "-o",
    "scores": "--scores",
    "keep": "--keep",
    "output_delimiter": "--output-delimiter",
    "bom": "--bom",
    "no_escape": "--no-escape",
    "by": "--by",
    "since": "--since",
    "until": "--until",
    "older_than": "--older-than",
    # models
    "ref": "REF",
    "alias": "ALIAS",
    "remote_id": "ID",
    # of the client alone
    "batch_rows": "batch_rows",
    "evaluations": "evaluations",
}


def as_written(field: str, value: str) -> str:
    """`--on-bad-row skip`."""
    option = OPTION_OF.get(field, field)
    return f"{option} {value}" if value else option


def words_of(message: LabelmillError | Notice) -> str:
    """The sentence of an error or a notice, with options for fields."""
    return message.message_for(as_written)
