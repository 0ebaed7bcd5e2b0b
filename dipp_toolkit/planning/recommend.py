"""Which settings fit into a GPU's memory: the fastest of those that give up the least."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from ..config import TrainConfig
from ..models.quantized_layers import KINDS, Kind
from .ahead import Call
from .bounds import Planned, least_peak
from .costs import network_costs
from .estimate import DECIDING, MARGIN, Plan, dry_runs, make_plan, samples_of_prompts, with_precision
from .machines import GPUS

SAME_RESULT: dict[str, Any] = {
    "reward_batch": 1, "decode_checkpointing": True, "recompute_generator": True, "gradient_checkpointing": True,
}  # fmt: skip
"""What saves memory and costs time alone, that of little time first; a training's result is the same."""

NARROW: dict[str, Any] = {"frozen_precision": "bf16"}
"""What saves memory and time, and rounds weights that passes in bf16 round anyway: the first to give up in a run whose
passes are in bf16, and everything after it comes with it."""

STEPS: tuple[dict[str, Any], ...] = ({"precision": "bf16", "frozen_precision": "bf16"}, {"mode": "lora"})
"""What is given up after that, in this order: precision of frozen weights, then training of all weights."""


def recommend(
    config: TrainConfig,
    memory: int,
    plan_of: Callable[[TrainConfig], Plan] = make_plan,
    rounded: bool = True,
    least_of: Callable[[TrainConfig, Sequence[Planned], float], int] | None = None,
    planned: Sequence[Planned] = (),
) -> tuple[Plan | None, dict[str, Any]]:
    """The fastest settings that fit with `MARGIN` to spare, among those that give up the least.

    Settings as they are come first, then, under passes in bf16, with `NARROW`, and with any of `SAME_RESULT`. Then
    batches are cut into ever smaller micro-batches, whose gradients are those of one batch, and at last activations
    wait in the host's memory. If that is not enough, `STEPS` and then frozen weights of `KINDS` follow one after the
    other, each with the same. The first of these groups in which a plan fits decides, and of it the plan with the least
    seconds a step; where several take as long, the one that changes less. Of a group whose most thrifty settings do not
    fit no other is planned, and none that would take longer than one that fits: what `SAME_RESULT` saves costs time.

    Args:
        config: resolved settings to begin with.
        memory: bytes.
        plan_of: makes the plans.
        rounded: whether `KINDS` of frozen weights, which change what is learnt, may be recommended at last; sharded
            networks do not take them.
        least_of: bytes that a plan takes at least, from the settings, the plans made so far, and bytes from which
            on no more need be known: settings for which they are more than fit are not planned. `least_peak` says them
            for a step on one GPU.
        planned: plans that were made before.

    Returns:
        The plan that fits, None where nothing does, and the settings that differ from `config`; where nothing fits,
        those of the most thrifty settings.
    """
    config = with_precision(config)
    thriftiest: dict[str, Any] = {}
    made = [(with_precision(settings), plan) for settings, plan in planned]

    def fits(size: int) -> bool:
        return size * (1 + MARGIN) <= memory

    def fitting_plan(changes: Mapping[str, Any]) -> Plan | None:
        changed = config.model_copy(update=dict(changes))
        if least_of is not None and not fits(least_of(changed, made, memory / (1 + MARGIN))):
            return None
        plan = plan_of(changed)
        made.append((changed, plan))
        return plan if fits(plan.peak) else None

    if (asked := fitting_plan({})) is not None:
        return asked, {}
    for given_up in _concessions(config, KINDS if rounded else ()):
        choices = list(_same_results(config, given_up))
        as_given, thriftiest = choices[0], choices[-1]
        if fitting_plan(thriftiest) is None:
            continue
        if (plan := fitting_plan(as_given)) is not None:  # nothing is recomputed: there is no faster one
            return plan, as_given
        best: tuple[tuple[float, int, int], Plan] | None = None
        for number, changes in enumerate(choices[1:], 1):
            changed = config.model_copy(update=changes)
            least = max((_ranked_seconds(plan, memory) for other, plan in made if _saves(other, changed)), default=0.0)
            if best is not None and (least, len(changes), number) > best[0]:
                continue
            if (plan := fitting_plan(changes)) is not None:
                key = (_ranked_seconds(plan, memory), len(changes), number)
                best = (key, plan) if best is None or key < best[0] else best
        assert best is not None  # the thriftiest fits
        return best[1], choices[best[0][2]]
    return None, thriftiest


def likely_dry_runs(config: TrainConfig, memory: int) -> list[Call]:
    """Dry runs that `recommend` will need if the settings that are asked for do not fit, the longest first: networks'.

    Args:
        config: resolved settings to begin with.
        memory: bytes of one GPU.
    """
    config = with_precision(config)
    for given_up in _concessions(config, KINDS):
        choices = list(_same_results(config, given_up))
        thriftiest = config.model_copy(update=choices[-1])
        if least_peak(thriftiest, enough=0) * (1 + MARGIN) <= memory:
            likely = choices[: 1 + len(SAME_RESULT)]  # what saves one thing
            settings = [thriftiest, *(config.model_copy(update=changes) for changes in likely)]
            calls = [call for changed in settings for call in dry_runs(changed)]
            return sorted(calls, key=lambda call: call.function is not network_costs)
    return []


def _saves(settings: TrainConfig, changed: TrainConfig) -> bool:
    """Whether settings are others without some of `SAME_RESULT`, and so are no slower."""
    differing = {name for name in DECIDING if getattr(settings, name) != getattr(changed, name)}
    return all(name in SAME_RESULT and getattr(changed, name) == SAME_RESULT[name] for name in differing)


def _ranked_seconds(plan: Plan, memory: int) -> float:
    """Seconds a step on the smallest GPU that has the memory, the largest where none has; rounded to what they say."""
    sizes = {gpu: GPUS[gpu][2] * 1e9 for gpu in plan.seconds}
    if not sizes:
        return 0.0
    gpu = min((gpu for gpu in sizes if sizes[gpu] >= memory), key=sizes.__getitem__, default=max(sizes, key=sizes.get))  # type: ignore[arg-type]
    return round(plan.seconds[gpu], 3)


def _same_results(config: TrainConfig, given_up: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is given up, with every choice of `SAME_RESULT` that changes something, few changes first."""
    settings = {**{name: getattr(config, name) for name in type(config).model_fields}, **given_up}
    now = {**settings, "reward_batch": settings["reward_batch"] or settings["batch_size"]}
    new = [(name, value) for name, value in SAME_RESULT.items() if now[name] != value]
    for count in range(len(new) + 1):
        for chosen in combinations(new, count):
            yield {**dict(chosen), **given_up}


def _concessions(config: TrainConfig, rounded: Sequence[Kind]) -> Iterator[dict[str, Any]]:
    """Settings to give up, `NARROW` or none at first, then ever more of them."""
    given_up = dict(NARROW) if config.precision == "bf16" and config.frozen_precision == "fp32" else {}
    yield from _thrifty(config, given_up)
    for step in STEPS:
        new = {name: value for name, value in step.items() if getattr(config, name) != value}
        if config.frozen_precision in KINDS:
            new.pop("frozen_precision", None)
        if step.get("precision") == config.precision:  # then frozen weights were narrow before
            continue
        if new:
            given_up = given_up | new
            yield from _thrifty(config, given_up)
    narrower = rounded[rounded.index(config.frozen_precision) + 1 :] if config.frozen_precision in rounded else rounded
    for kind in narrower:
        yield from _thrifty(config, given_up | {"frozen_precision": kind})


def _thrifty(config: TrainConfig, given_up: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """These settings given up, then smaller micro-batches as well, then activations in the host's memory."""
    changes = given_up
    yield changes
    for size in _micro_batches(config):
        changes = given_up | {"batch_size": size, "accumulation": config.accumulation * config.batch_size // size}
        yield changes
    if not config.activation_offload and config.device != "cpu" and config.compile != "graphs":
        yield changes | {"activation_offload": True}


def _micro_batches(config: TrainConfig) -> Iterator[int]:
    """Ever smaller parts that a batch can be cut into: a prompt's samples stay together, and one is half of the one
    before or less."""
    needed = config.noises_per_prompt or samples_of_prompts(config).get("noises_per_prompt", 1)
    size = config.batch_size
    for part in range(size // 2, 0, -1):
        if config.batch_size % part == 0 and part % needed == 0 and 2 * part <= size:
            size = part
            yield part
