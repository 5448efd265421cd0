"""What a job may cost at most, as it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from labelmill.contracts.bounds import MAX_AMOUNT, shown
from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.field_names import named
from labelmill.contracts.specs import EMBEDDING_MODEL, TrainSpec
from labelmill.core.database.tables import ModelRow
from labelmill.core.money.costs import priced_model
from labelmill.core.money.prices import PriceList


def check_max_cost(max_cost: float | None, models: Iterable[str], prices: PriceList) -> None:
    """Raise InvalidInput for what is no amount, and for a model whose price is not known: its cost cannot be
    limited."""
    if max_cost is None:
        return
    if not 0 <= max_cost <= MAX_AMOUNT:
        raise InvalidInput(f"{named('max_cost')} must be 0 or more, and at most {MAX_AMOUNT:,}")
    for model in models:
        if prices.price_of(priced_model(model, prices)) is None:
            raise InvalidInput(
                f"the price of {shown(model)} is not known, so {named('max_cost')} cannot be kept: "
                "set LABELMILL_PRICES, or leave it out"
            )


def models_asked(model: ModelRow) -> list[str]:
    """Mistral's models that are asked when a model version classifies."""
    embeds = (model.recipe or {}).get("embedding_model") if model.method == "prompt" else None
    return [name for name in (model.remote_model, embeds) if name]


def models_of_training(method: str, spec: TrainSpec) -> list[str]:
    """The models that a training pays by the token; for a fine-tuning Mistral names its price."""
    if method == "embedding":
        return [spec.base_model]
    if method == "prompt":
        embeds = spec.shot_selection == "nearest" or spec.candidates is not None
        return [spec.base_model, *([EMBEDDING_MODEL] if embeds else [])]
    return []
