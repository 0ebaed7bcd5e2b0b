"""The sizes of a run's images: what its settings ask for, or what the generator's folder records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...config import TrainConfig
from ...errors import RequestError
from ...models.buckets import Buckets
from ...models.family import PipelineFamily
from ...models.sizes import asked_sizes
from ...objective.base import asks_scores_alone, keeps_latents, takes_rewards
from ...objective.build import term_class
from ...objective.estimators.surrogate import Surrogate
from ...objective.terms.reward import RewardTerm
from ...protocols import Generator, Reference
from ...rewards.facts import facts_of
from ...utils.image_sizes import Size


def run_sizes(
    config: TrainConfig, folder: Path, family: PipelineFamily, own: tuple[int, ...], recorded: tuple[Size, ...]
) -> tuple[Size, ...]:
    """The sizes of a run's latents, the first one first; none where they are the networks' own.

    Args:
        config: resolved settings.
        folder: of the reference's pipeline.
        family: of its class.
        own: the shape of its latents as its configuration has it.
        recorded: what the generator's folder records, which holds where the settings say nothing.

    Raises:
        RequestError: the reference cannot draw such a size, or a part of the objective works with one size alone.
    """
    sizes = asked_sizes(folder, family, own, config.resolution, config.aspects) or recorded
    if len(sizes) > 1:
        _check_objective(config)
    return sizes


def _check_objective(config: TrainConfig) -> None:
    for name in config.terms:
        if keeps_latents(term_class(name)):
            raise RequestError(
                f"The term '{name}' learns on latents of updates before, so that all have to be of one size. Name one "
                "aspect, as in aspects=1:1, or another term."
            )
    for name in config.latent_rewards:
        raise RequestError(
            f"The option latent of the reward '{name}' learns on latents of one size. Name one aspect, as in "
            "aspects=1:1, or leave latent=true out."
        )
    for name in _black_boxes(config):
        raise _of_one_size(name)


def _black_boxes(config: TrainConfig) -> list[str]:
    """Rewards that a surrogate would learn: asked for gradients, which their classes say they have none of."""
    holders = [kind for kind in map(term_class, config.terms) if takes_rewards(kind)]
    scored = bool(holders) and all(asks_scores_alone(kind) for kind in holders)
    if scored or config.black_box != "surrogate":
        return []
    names = dict.fromkeys([*config.rewards, *config.floors])
    return [name for name in names if facts_of(name).differentiable is False]


def _of_one_size(name: str) -> RequestError:
    return RequestError(
        f"The reward '{name}' has no gradient, and the surrogate that stands in for it learns on latents of one size. "
        "Train with black_box=smoothing, or name one aspect, as in aspects=1:1."
    )


def in_sizes(
    config: TrainConfig, reference: Reference, generator: Generator
) -> tuple[Reference, Generator, Buckets | None]:
    """Reference and generator at the first of the run's sizes, and the sizes of its updates where there are several.

    Raises:
        RequestError: the settings name sizes, and one of the two is not a diffusers pipeline, or see `run_sizes`.
    """
    from ...models.generator import DiffusersGenerator
    from ...models.reference import DiffusersReference

    if not (isinstance(reference, DiffusersReference) and isinstance(generator, DiffusersGenerator)):
        if config.resolution is not None or config.aspects:
            raise RequestError(no_sizes(config))
        return reference, generator, None
    sizes = run_sizes(config, reference.folder, reference.family, reference.latent_shape, generator.sizes)
    if not sizes:
        return reference, generator, None
    buckets = Buckets(sizes, config.seed) if len(sizes) > 1 else None
    return reference.sized(sizes[0]), generator.sized(sizes), buckets


def no_sizes(config: TrainConfig) -> str:
    """Why a run of somebody's own networks has no sizes, as a sentence."""
    setting = "resolution" if config.resolution is not None else "aspects"
    return (
        f"The setting {setting} gives the size of a run's images, and only diffusers pipelines draw more than one. "
        "Leave it out, and build generator and reference for the size that you want."
    )


def check_surrogates(rewards: Iterable[RewardTerm]) -> None:
    """Refuse black-box rewards whose surrogate would have to learn on latents of several sizes.

    Those whose classes say that they have no gradient are refused by `run_sizes`; the others show it in a trial.

    Raises:
        RequestError: there is one.
    """
    for reward in rewards:
        if reward.black_box and isinstance(reward.estimator, Surrogate):
            raise _of_one_size(reward.name)
