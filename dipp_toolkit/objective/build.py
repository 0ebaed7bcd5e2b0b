"""The objective that settings ask for: its terms, how rewards are mixed, and what estimates missing gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch

from ..config import TrainConfig
from ..distributed import Processes
from ..errors import PluginError, RequestError
from ..models.decoding import DecodeOptions
from ..protocols import Assistant, Reference, Reward, RewardDecoding
from ..registry import get_registry
from ..utils.imports import check_call, is_python_name, load_python_name, made_by
from .base import Term, TermContext, asks_scores_alone, side_of, takes_rewards, uses_assistant
from .estimators.base import GradientEstimator
from .estimators.latent import LatentReward
from .estimators.smoothing import Smoothing
from .estimators.surrogate import Surrogate
from .evaluate import WeightedTerm
from .mixing.floors import Floor
from .mixing.kl_budget import KLBudget
from .mixing.mix import RewardMix
from .mixing.scale import MEASURED, RewardScale
from .result import reward_term
from .terms.for_prompts import ForPrompts, PromptWeights
from .terms.reward import RewardTerm
from .terms.shared_decode import SharedDecode


def find_term(name: str) -> Callable[[TermContext], Term]:
    """The factory of a term, by registered name, `file.py:attribute` or `module:attribute`.

    A class with a `build(context)` classmethod is built with that.

    Raises:
        RequestError: the term is unknown; the message names the nearest.
    """
    registered = get_registry().entries["term"]
    if name in registered:
        return cast("Callable[[TermContext], Term]", registered[name].build)
    if is_python_name(name):
        target: Any = load_python_name(name, "term")
        factory = getattr(target, "build", target)
        check_call(factory, ("context",), f"term '{name}'")
        return cast("Callable[[TermContext], Term]", factory)
    raise get_registry().unknown(name, "term")


def build_term(name: str, context: TermContext) -> Term:
    """Build the term of this name; see `find_term`.

    Raises:
        PluginError: the factory's product cannot be called with a sample.
    """
    term = find_term(name)(replace(context, name=name, options=context.config.term_options.get(name, {})))
    if not callable(term):
        raise PluginError(
            f"The term '{name}' made {term!r}; expected a callable that takes a sample and returns a TermResult."
        )
    return term


def check_term(name: str, config: TrainConfig) -> None:
    """Refuse settings that a term does not work with, before anything is loaded: what its class says with a classmethod
    `check_settings(name, config)`.

    Raises:
        RequestError: the term is unknown, or as its class says.
    """
    factory = _factory(name)
    kind = made_by(factory)
    check = getattr(kind, "check_settings", None)
    if check is None:
        return
    # A function from elsewhere may make the same term of other options.
    if isinstance(getattr(factory, "__self__", factory), type) or factory.__module__ == kind.__module__:
        check(name, config)


NO_PULL = "Set a scale instead of a pull, for example --set reward_scale=1."


def why_no_pull(names: Iterable[str]) -> str:
    """Why the rewards of these terms have no pull to measure, and the way out; empty where they have one.

    A factory that does not say what it makes is taken to make a divergence.
    """
    return why_no_pull_of(_classes(names))


def why_no_pull_of(terms: Mapping[str, Any]) -> str:
    """The same of terms, or of their classes, by name."""
    return _why_not_scaled(
        terms,
        "The term '{}' has the rewards inside its own formula, where they have no gradient of their own whose pull "
        f"could be measured. {NO_PULL}",
        f"A pull is measured against a divergence, and {{}} is not a divergence. {NO_PULL}",
    )


def why_no_budget(names: Iterable[str]) -> str:
    """Why no KL budget can be held with these terms, and the way out; empty where one can.

    A factory that does not say what it makes is taken to make a divergence.
    """
    return why_no_budget_of(_classes(names))


def why_no_budget_of(terms: Mapping[str, Any]) -> str:
    """The same of terms, or of their classes, by name."""
    return _why_not_scaled(
        terms,
        "The term '{}' has the rewards inside its own formula, where a kl_budget cannot scale them. Leave it out, or "
        "train with integral_kl.",
        "A kl_budget needs a divergence to the reference, and {} is not a divergence. Leave it out, or add "
        "integral_kl.",
    )


def why_nothing_learned(names: Iterable[str]) -> str:
    """Why no reward of these terms can be learned on latents, and the way out; empty where one can."""
    return why_nothing_learned_of(_classes(names))


def why_nothing_learned_of(terms: Mapping[str, Any]) -> str:
    """The same of terms, or of their classes, by name."""
    scored = next((name for name, term in terms.items() if asks_scores_alone(term)), None)
    if scored is None:
        return ""
    return (
        f"The term '{scored}' uses the true scores of rewards alone, and latent=true learns gradients. Leave latent "
        "out, or train with integral_kl."
    )


def term_class(name: str) -> Any:
    """The class of a term, without making it; None where its factory does not say."""
    return _classes([name])[name]


def _classes(names: Iterable[str]) -> dict[str, Any]:
    return {name: made_by(_factory(name)) for name in names}


def _factory(name: str) -> Callable[..., Any]:
    registered = get_registry().entries["term"]
    return registered[name].find_factory() if name in registered else find_term(name)


def _why_not_scaled(terms: Mapping[str, Any], inside: str, alone: str) -> str:
    """Why rewards cannot be scaled beside a divergence; empty where they can.

    Args:
        terms: or their classes, by name.
        inside: what to say of a term that has the rewards inside its formula, `{}` being its name.
        alone: what to say where no term is a divergence, `{}` being their names.
    """
    both = next((name for name, term in terms.items() if takes_rewards(term) and uses_assistant(term)), None)
    if both is not None:
        return inside.format(both)
    if any(side_of(term) == "divergences" for term in terms.values()):
        return ""
    return alone.format(", ".join(f"'{name}'" for name in terms))


def build_terms(
    config: TrainConfig,
    reference: Reference,
    assistant: Assistant,
    rewards: Mapping[str, Reward],
    device: torch.device,
    processes: Processes | None = None,
    by_prompt: Mapping[str, PromptWeights] | None = None,
) -> list[WeightedTerm]:
    """The objective: the terms that the settings name, then one for each reward, unless a term takes the rewards.

    Args:
        config: the run's settings.
        reference: the frozen reference.
        assistant: the score network of the generator's own samples.
        rewards: by name.
        device: where the run computes.
        processes: those that share the run.
        by_prompt: weights of the rewards whose weight depends on the prompt, in place of the settings'.

    Raises:
        RequestError: decode options are set, and the reference's decoder does not take them.
    """
    options = DecodeOptions(config.decode_checkpointing, config.decode_tiling, config.decoder, config.reward_resolution)
    decode: Any = reference.decode
    if rewards and options != DecodeOptions():
        if not isinstance(reference, RewardDecoding):
            raise RequestError("Decode options need a diffusers pipeline as the reference; this reference is not one.")
        decode = reference.reward_decoder(options)
    by_prompt = by_prompt or {}
    shared = SharedDecode(decode, len(rewards.keys() - by_prompt.keys()))
    weights = {name: config.rewards.get(name, 0.0) for name in rewards}
    weights |= {name: own.largest for name, own in by_prompt.items()}
    reward_terms = {
        name: RewardTerm(
            name,
            reward,
            SharedDecode(decode) if name in by_prompt else shared,
            config.reward_batch,
            build_estimator(config, device, processes),
            ascended=weights[name] >= 0,
            latent=build_latent(name, config, processes),
            tf32=config.reward_tf32,
        )
        for name, reward in rewards.items()
    }
    context = TermContext(
        reference, assistant, config, rewards, reward_terms, processes=processes or Processes(), device=device
    )
    own = {name: build_term(name, context) for name in config.terms}
    if config.latent_rewards:
        why = why_nothing_learned_of(own)
        if why:
            raise RequestError(why)
    if config.measures_pull and rewards:
        why = why_no_pull_of(own)
        if why:
            raise RequestError(why)
    if config.kl_budget is not None:
        why = why_no_budget_of(own)
        if why:
            raise RequestError(why)
    terms = [
        # A term that is nothing but rewards answers to what scales them.
        WeightedTerm(name, own[name], weight, takes_rewards(own[name]) and side_of(own[name]) == "rewards")
        for name, weight in config.terms.items()
    ]
    if any(takes_rewards(weighted.term) for weighted in terms):
        return terms
    return terms + [
        WeightedTerm(
            reward_term(name),
            ForPrompts(term, by_prompt[name]) if name in by_prompt else term,
            config.alpha_rew * weights[name],
            mixed=True,
        )
        for name, term in reward_terms.items()
    ]


def build_mix(config: TrainConfig, processes: Processes | None = None) -> RewardMix:
    """How the rewards' gradients become one."""
    floors = {reward_term(name): Floor(level, config.floor_rate) for name, level in config.floors.items()}
    processes = processes or Processes()
    pull = config.pull if config.measures_pull and (config.rewards or config.floors) else None
    budget = None if config.kl_budget is None else KLBudget(config.kl_budget, processes)
    scale = RewardScale(pull, config.scale_by_step, budget)
    return RewardMix(config.balance, config.reward_clip, floors, processes=processes, scale=scale)


def build_estimator(config: TrainConfig, device: torch.device, processes: Processes | None = None) -> GradientEstimator:
    """What makes a gradient for a reward that has none; it costs nothing where it is not needed."""
    if config.black_box == "smoothing":
        return Smoothing(config.black_box_pairs, config.black_box_radius, config.black_box_side)
    return Surrogate(
        config.black_box_trust, config.black_box_rounds, config.seed, device, processes=processes or Processes()
    )


def build_latent(name: str, config: TrainConfig, processes: Processes | None = None) -> LatentReward | None:
    """What stands in for a reward in most steps; None where the settings do not ask for it."""
    if name not in config.latent_rewards:
        return None
    return LatentReward(
        config.latent_every,
        config.latent_rank,
        config.latent_cosine,
        config.seed,
        processes or Processes(),
        MEASURED if config.measures_pull else 0,
    )
