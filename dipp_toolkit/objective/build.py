"""The objective that settings ask for: its terms, how rewards are mixed, and who estimates missing gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..config import TrainConfig
from ..distributed import Processes
from ..errors import RequestError
from ..models.decoding import DecodeOptions
from ..protocols import Assistant, Reference, Reward
from .base import TermContext, side_of, takes_rewards
from .catalog import build_term, why_no_budget_of, why_no_pull_of
from .estimators.base import GradientEstimator
from .estimators.smoothing import Smoothing
from .estimators.surrogate import Surrogate
from .evaluate import WeightedTerm
from .mixing.floors import Floor
from .mixing.kl_budget import KLBudget
from .mixing.mix import RewardMix
from .mixing.scale import RewardScale
from .terms.reward import RewardTerm
from .terms.shared_decode import SharedDecode


def build_terms(
    config: TrainConfig,
    reference: Reference,
    assistant: Assistant,
    rewards: Mapping[str, Reward],
    device: torch.device,
    processes: Processes | None = None,
) -> list[WeightedTerm]:
    """The objective: the terms that the settings name, then one for each reward, unless a term takes the rewards.

    Raises:
        RequestError: decode options were asked for, and the reference has no decoder that takes them.
    """
    options = DecodeOptions(config.decode_checkpointing, config.decode_tiling, config.decoder, config.reward_resolution)
    decode: Any = reference.decode
    if rewards and options != DecodeOptions():
        special = getattr(reference, "reward_decoder", None)
        if special is None:
            raise RequestError("Decode options work on diffusers pipelines alone; this reference is none.")
        decode = special(options)
    shared = SharedDecode(decode, len(rewards))
    reward_terms = {
        name: RewardTerm(
            name,
            reward,
            shared,
            config.reward_batch,
            build_estimator(config, device, processes),
            ascended=config.rewards.get(name, 0.0) >= 0,
        )
        for name, reward in rewards.items()
    }
    context = TermContext(reference, assistant, config, rewards, reward_terms, processes=processes or Processes())
    own = {name: build_term(name, context) for name in config.terms}
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
    if any(takes_rewards(one.term) for one in terms):
        return terms
    return terms + [
        WeightedTerm(f"reward/{name}", term, config.alpha_rew * config.rewards.get(name, 0.0), mixed=True)
        for name, term in reward_terms.items()
    ]


def build_mix(config: TrainConfig, processes: Processes | None = None) -> RewardMix:
    """How the rewards' gradients become one."""
    floors = {f"reward/{name}": Floor(level, config.floor_rate) for name, level in config.floors.items()}
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
