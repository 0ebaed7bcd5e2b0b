"""What a plan says at least."""

from __future__ import annotations

from typing import Any

import pytest

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.planning.bounds import least_peak
from dipp_toolkit.planning.estimate import Plan, make_plan
from dipp_toolkit.planning.recommend import recommend
from dipp_toolkit.planning.scaling import Scale, scaled_plan

EMOJI: dict[str, Any] = {
    "reference": "emoji-reference", "rewards": {"emoji-clip": 1.0}, "batch_size": 8, "lora_rank": 8,
}  # fmt: skip


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_least_peak_is_none_above_the_planned_one(mode: str) -> None:
    config = TrainConfig(**EMOJI, mode=mode, precision="fp32")
    least, plan = least_peak(config), make_plan(config)
    assert sum(plan.resident.values()) < least <= plan.peak
    assert least_peak(config, enough=0) < least, "rewards are left out where the rest is enough"
    assert least_peak(config, [(config, plan)]) == plan.peak, "a plan says everything of its own settings"
    asked: list[TrainConfig] = []

    def plan_of(config: TrainConfig) -> Plan:
        asked.append(config)
        return make_plan(config)

    assert recommend(config, least, plan_of, least_of=lambda *_: least)[0] is None  # a margin is left
    assert asked == []


@pytest.mark.parametrize(
    ("changes", "says_something"),
    [
        ({"batch_size": 2, "accumulation": 4}, True),
        ({"batch_size": 1, "accumulation": 8, "activation_offload": True}, True),
        ({"frozen_precision": "nf4"}, True),
        ({"frozen_precision": "fp32"}, True),
        ({"reward_batch": 1, "decode_checkpointing": True, "batch_size": 4}, True),
        ({"gradient_checkpointing": False}, False),
        ({"batch_size": 16}, False),
        ({"recompute_generator": False}, False),
    ],
)
def test_a_plan_bounds_those_that_need_as_much_for_their_passes(changes: dict[str, Any], says_something: bool) -> None:
    config = TrainConfig(
        **EMOJI, mode="lora", precision="bf16", frozen_precision="bf16", gradient_checkpointing=True,
        recompute_generator=True,
    )  # fmt: skip
    changed = config.model_copy(update=changes)
    known = [(config, make_plan(config))]
    without, bound, peak = least_peak(changed), least_peak(changed, known), make_plan(changed).peak
    assert without <= bound <= peak
    assert (bound > without) == says_something or bound == peak


def test_a_plan_for_several_processes_bounds_as_well() -> None:
    config = TrainConfig(**EMOJI, mode="full", precision="fp32")
    plan = scaled_plan(config, Scale(processes=8)).plan
    assert plan.transient.keys() > make_plan(config).transient.keys(), "gradients are averaged besides"
    assert least_peak(config) < least_peak(config, [(config, plan)]) <= plan.peak


def test_a_graph_that_is_made_again_is_not_counted_beside_rewards() -> None:
    config = TrainConfig(**EMOJI, mode="lora", precision="bf16", frozen_precision="bf16")
    again = config.model_copy(update={"recompute_generator": True})
    known = [(config, make_plan(config))]
    assert least_peak(again) < least_peak(again, known) <= make_plan(again).peak < known[0][1].peak
