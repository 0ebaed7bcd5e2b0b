"""What every number of a world depends on beside the cell that it belongs to, as one digest: the basis of its rows."""

from __future__ import annotations

from typing import Any, cast

from benchmarks.fair_study.objectives import SHARED
from benchmarks.fair_study.sittings import SITTINGS, the_judge, the_reference
from benchmarks.fair_study.source_digest import source_digest
from benchmarks.fair_study.worlds import World
from dipp_toolkit import load_generator, load_prompts
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.protocols import texts
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.training.run_state.start_record import pipeline_digest
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.fingerprint import digest_of

FORMAT = 1
"""Raised where rows come to mean something else without any of the rest having changed."""
LOOKS_ONLY = frozenset(
    {
        "out", "resume", "device", "prompt_cache", "checkpoint_every", "keep_checkpoints", "sample_every", "eval_count",
        "eval_seeds", "eval_prompts", "reference_steps", "reference_guidance", "judge", "monitor_every",
        "monitor_count", "diagnose_every", "steps", "seed",
    }
)  # fmt: skip
"""Settings that change no weight, and those that each cell has its own of."""
OF_CELLS = frozenset({"reward_scale", "pull", "guidance"})
"""Settings that every cell with rewards decides itself: a recommendation of them reaches no run."""


def deciding_settings(config: TrainConfig) -> dict[str, Any]:
    """The resolved settings that decide a run's weights: all that the study writes down, and of the others those that
    are not at their defaults, so that a new setting at its default changes nothing."""
    defaults = TrainConfig.model_construct()
    return {
        name: getattr(config, name)
        for name in sorted(TrainConfig.model_fields.keys() - LOOKS_ONLY - OF_CELLS)
        if name in SHARED or getattr(config, name) != getattr(defaults, name)
    }


def dependencies(world: World) -> dict[str, Any]:
    """All that is digested, by name. Loads the world's generator and reference.

    Raises:
        RequestError: the world is not registered.
    """
    rewards = {name: load_reward(name) for name in SHARED["rewards"]}
    places = {"generator": world.generator, "reference": world.reference}
    config = resolve(TrainConfig(**{**SHARED, **world.settings, **places}))
    return {
        "format": FORMAT,
        "generator": pipeline_digest(cast(Any, load_generator(world.generator)).folder),
        "reference": pipeline_digest(cast(Any, the_reference(world.reference)).folder),
        "judge": pipeline_digest(the_judge().folder),
        "rewards": {name: pipeline_digest(cast(Any, reward).folder) for name, reward in rewards.items()},
        "settings": deciding_settings(config),
        "prompts": digest_of(list(texts(load_prompts(SHARED["prompts"])))),
        "sittings": {name: [sitting.prompts, sitting.noises, sitting.real] for name, sitting in SITTINGS.items()},
        "code": source_digest(),
    }


def basis_of(world: World) -> str:
    """The digest of `dependencies`."""
    return digest_of(dependencies(world))[:16]
