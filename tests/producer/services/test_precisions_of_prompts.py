"""A precision can be certified for the single-label targets of a prompt, whose scores may be probabilities."""

from __future__ import annotations

import pytest

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.specs import TrainSpec
from labelmill.services.trainings import check_precisions_of_prompts

SINGLE = {"name": "intent", "labels": ["a", "b"], "multi": False}
MULTI = {"name": "tags", "labels": ["x", "y"], "multi": True}


@pytest.mark.parametrize("name", ["*", "tags", "tags.x"])
def test_a_precision_of_a_multi_label_target_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"the multi-label target 'tags' 1 and 0: name single-label targets"):
        check_precisions_of_prompts(TrainSpec(target_precision={name: 0.9}), [SINGLE, MULTI])


@pytest.mark.parametrize("name", ["intent", "intent.a"])
def test_one_of_a_single_label_target_is_taken(name: str) -> None:
    check_precisions_of_prompts(TrainSpec(target_precision={name: 0.9}), [SINGLE, MULTI])
