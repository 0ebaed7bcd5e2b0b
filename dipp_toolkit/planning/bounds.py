"""What a plan says at least, before the networks are run: most settings that do not fit are ruled out by it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..config import TrainConfig
from ..models.quantized_layers import KINDS
from .estimate import DECIDING, Plan, Step, with_precision

Planned = tuple[TrainConfig, Plan]
"""Settings, and the plan that was made of them."""


def least_peak(config: TrainConfig, planned: Sequence[Planned] = (), enough: float = math.inf) -> int:
    """Bytes that a step of these settings peaks at, at least: what stays, and the largest piece of a step as far as
    rewards and plans of thriftier passes say. The networks are not run.

    Args:
        config: resolved settings, as for `make_plan`.
        planned: plans that were made before, of any settings.
        enough: rewards are not run either where the rest comes to more bytes than these.

    Raises:
        RequestError: as `make_plan`.
    """
    config = with_precision(config)
    passes = [_least_of_passes(settings, plan, config) for settings, plan in planned]
    least = 0
    for rewards in (False, True):
        bare = Step.of(config, passes=False, rewards=rewards)
        pieces = ((size, [added.get(piece, 0) for added in passes]) for piece, size in bare.transient.items())
        least = sum(bare.resident.values()) + max(size + max(added, default=0) for size, added in pieces)
        if least > enough:
            break
    return least


PASSES_STAY = {
    "batch_size", "accumulation", "activation_offload", "frozen_precision", "noises_per_prompt", "rewards", "floors",
    "decode_checkpointing", "decode_tiling", "reward_batch", "reward_resolution", "reward_tf32", "latent_every",
    "recompute_generator",
}  # fmt: skip
"""Settings in which steps may differ and one still says something of the other's passes."""


def _least_of_passes(settings: TrainConfig, plan: Plan, config: TrainConfig) -> dict[str, int]:
    """Bytes that the networks' passes of some settings add to the pieces of a step, at least, from a plan of others.

    What is alive in a pass is constant or in proportion to the batch: with $b$ samples there is at least $b / B$ of
    what there is with $B$. Wide frozen weights are cast, and need more than narrow ones. Nothing is said of pieces that
    hold a graph where activations wait in the host's memory, nor of those that need none where it is made again.
    """
    alike = all(getattr(settings, name) == getattr(config, name) for name in DECIDING if name not in PASSES_STAY)
    narrow = settings.frozen_precision in ("bf16", *KINDS) and config.precision == "bf16"
    if (
        not alike
        or not (narrow or settings.frozen_precision == config.frozen_precision)
        or settings.batch_size < config.batch_size
        or (config.recompute_generator < settings.recompute_generator)
    ):
        return {}
    bare = Step.of(with_precision(settings), passes=False).transient
    silent: set[str] = set()
    beside_graph = {piece for piece in bare if piece == "divergence" or piece.startswith("reward ")}
    if settings.activation_offload != config.activation_offload:
        silent |= bare.keys() - (beside_graph if config.recompute_generator else set())
    if settings.recompute_generator != config.recompute_generator:
        silent |= beside_graph
    return {
        piece: (size - bare[piece]) * config.batch_size // settings.batch_size
        for piece, size in plan.transient.items()
        if piece in bare and piece not in silent  # what several processes add is not of their passes
    }
