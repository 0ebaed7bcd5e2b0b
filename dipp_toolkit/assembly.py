"""From settings to a ready engine: resolves recommended settings, loads every part, and puts the objective together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import adapters
from .adapters import AdapterSettings
from .assistant import LearnedAssistant
from .averaging import WeightAverage
from .condition import Condition
from .config import TrainConfig, make_config
from .denoiser import Denoiser
from .engine import Engine
from .errors import RequestError, RunError
from .few_step_scheduler import saved_steps
from .few_steps import with_steps
from .loading import load_generator, load_prompts, load_reference, load_reward, looks_like_path
from .monitors.settings import check_monitors
from .network_options import apply_network_options, make_optimizer
from .objective import build_mix, build_terms
from .precision import DTYPES, PRECISIONS
from .prompt_conditions import Conditions, encode_prompts
from .registry import get_registry
from .roles import Generator, Reference, Reward, texts
from .setting_texts import read_yaml
from .sharing import trainable_parameters
from .terms.base import uses_assistant
from .terms.catalog import find_term
from .terms.times import UniformTimes, find_sampling, find_weighting

FROM_RUN = (
    "reference", "prompts", "eval_prompts", "judge", "guidance", "reference_guidance", "reference_steps", "precision",
    "generator_steps",
)  # fmt: skip
"""Settings that carry over where a run folder is named as the generator."""


def _recommended(config: TrainConfig) -> Mapping[str, Any]:
    """Settings that come with the generator, or, for a distillation, with the reference.

    Raises:
        RequestError: neither is named.
    """
    kind, name = ("reference", config.reference) if config.generator is None else ("generator", config.generator)
    if name is None:
        raise RequestError("Name a generator to train with --generator, or a reference to distil with --reference.")
    entry = get_registry().entries[kind].get(name)
    if entry is not None:
        return entry.defaults
    for folder in (Path(name), Path(name).parent):
        if looks_like_path(name) and (folder / "config.yaml").is_file():
            earlier = make_config(read_yaml(folder / "config.yaml"))
            return {field: getattr(earlier, field) for field in FROM_RUN}
    saved = saved_steps(name) if kind == "generator" else None
    return {} if saved is None else {"generator_steps": saved}


def with_recommended(config: TrainConfig) -> TrainConfig:
    """The settings, with every one that the user did not give filled from those recommended.

    Raises:
        RequestError: neither a generator nor a reference is named.
    """
    return make_config(dict(_recommended(config)) | {name: getattr(config, name) for name in config.model_fields_set})


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill every setting the user did not give from those recommended with the generator or reference.

    Raises:
        RequestError: no reference or no prompts are known, or a name does not exist. Nothing heavy is loaded to
            find out.
    """
    resolved = with_recommended(config)
    if resolved.reference is None:
        raise RequestError(f"Name the reference of '{resolved.generator}' with --reference.")
    if resolved.prompts is None:
        raise RequestError("Name the prompts to train on with --prompts: a prompt set or a text file.")
    registry = get_registry()
    for kind, name in (("reference", resolved.reference), ("generator", resolved.generator)):
        if name is not None and not looks_like_path(name) and not name.startswith("diffusers:"):
            registry.find(kind, name)
    if not resolved.terms:
        raise RequestError("Name a term of the objective: --set term=integral_kl, say.")
    for name in resolved.terms:
        find_term(name)
    for name in resolved.term_options.keys() - resolved.terms.keys():
        raise RequestError(f"Options were set for the term '{name}', which this run does not use.")
    find_weighting(resolved.weighting)
    find_sampling(resolved.time_sampling, *resolved.time_range)
    for name in resolved.reward_options:
        if name not in {*resolved.rewards, *resolved.floors, resolved.judge, *resolved.monitor_rewards}:
            raise RequestError(f"Options were set for the reward '{name}', which this run does not use.")
    check_monitors(resolved)
    return resolved


@dataclass
class Assembled:
    """Everything a run works with.

    Attributes:
        engine: ready to step.
        generator: what is trained.
        reference: frozen.
        average: of the generator's weights.
        rewards: trained on, by name.
        judge: name and reward that only judges.
        conditions: the training prompts, encoded.
        eval_conditions: the comparison's prompts, encoded.
        watchers: other rewards that only the monitors and the comparison look at.
    """

    engine: Engine
    generator: Generator
    reference: Reference
    assistant: LearnedAssistant
    average: WeightAverage
    rewards: Mapping[str, Reward]
    judge: tuple[str, Reward] | None
    conditions: Conditions
    eval_conditions: Condition
    device: torch.device
    watchers: Mapping[str, Reward] = field(default_factory=dict)


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` takes a GPU where there is one.

    Raises:
        RequestError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"The device '{name}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _pick_evenly(prompts: list[str], count: int) -> list[str]:
    count = min(count, len(prompts))
    return [prompts[index * len(prompts) // count] for index in range(count)]


def _load_rewards(config: TrainConfig) -> tuple[dict[str, Reward], tuple[str, Reward] | None]:
    names = dict.fromkeys([*config.rewards, *config.floors])
    rewards = {name: load_reward(name, **config.reward_options.get(name, {})) for name in names}
    if config.judge is None:
        return rewards, None
    if config.judge in rewards:
        raise RequestError(
            f"The judge '{config.judge}' is also trained on; a judge only judges. Name another with --judge."
        )
    return rewards, (config.judge, load_reward(config.judge, **config.reward_options.get(config.judge, {})))


def _load_watchers(config: TrainConfig) -> dict[str, Reward]:
    names = dict.fromkeys(name for name in config.monitor_rewards if name != config.judge)
    return {name: load_reward(name, **config.reward_options.get(name, {})) for name in names}


def _to_device(role: Any, device: torch.device) -> Any:
    return role.to(device) if hasattr(role, "to") else role


def _load_reference(config: TrainConfig) -> Reference:
    reference = load_reference(config.reference or "", **_weights_dtype(config))
    encoder = getattr(reference, "encoder", None)
    if encoder is not None:
        encoder.long_prompts = config.long_prompts
    return reference


def _weights_dtype(config: TrainConfig) -> dict[str, Any]:
    return {} if config.frozen_precision == "fp32" else {"dtype": DTYPES[config.frozen_precision]}


def adapter_settings(config: TrainConfig) -> AdapterSettings:
    """The adapters that the settings ask for."""
    return AdapterSettings(config.lora_rank, config.lora_alpha or float(config.lora_rank), config.lora_targets)


def _initial_generator(config: TrainConfig, reference: Reference) -> Generator:
    from .diffusers_generator import DiffusersGenerator
    from .diffusers_reference import DiffusersReference

    pipeline = reference if isinstance(reference, DiffusersReference) else None
    if config.generator is not None:
        generator = load_generator(config.generator, **({} if config.readout is None else {"readout": config.readout}))
    elif pipeline is not None:
        generator = DiffusersGenerator.from_reference(pipeline, 1.0 if config.readout is None else config.readout)
    else:
        raise RequestError(
            "Only a diffusers pipeline can be distilled from its own network; name a generator with --generator."
        )
    asked = config.generator_steps if "generator_steps" in config.model_fields_set else None
    generator = with_steps(generator, asked, config.generator or "")
    if tuple(generator.latent_shape) != tuple(reference.latent_shape):
        raise RequestError(
            f"The generator makes latents of shape {tuple(generator.latent_shape)} and the reference of shape "
            f"{tuple(reference.latent_shape)}; they must share a latent space."
        )
    if config.mode == "lora":
        if pipeline is None or not isinstance(generator, DiffusersGenerator):
            raise RequestError("The mode lora works on diffusers pipelines alone; use mode=full.")
        generator.adapt(adapter_settings(config), pipeline, config.seed)
    return generator


def assemble(config: TrainConfig) -> Assembled:
    """Load and join every part of a run.

    Args:
        config: resolved settings.

    Raises:
        RequestError: a part is unknown, unusable, or does not fit the others.
    """
    device = choose_device(config.device)
    rewards, judge = _load_rewards(config)
    watchers = _load_watchers(config)
    prompts = texts(load_prompts(config.prompts or ""))
    eval_prompts = texts(load_prompts(config.eval_prompts)) if config.eval_prompts else prompts
    reference = _load_reference(config).to(device)
    generator = _initial_generator(config, reference)
    check = getattr(generator, "check_exportable", None)
    if check is not None:
        check()
    conditions, eval_conditions = encode_prompts(
        reference, config, prompts, _pick_evenly(eval_prompts, config.eval_count), device
    )
    generator.network.to(device)
    reference.denoiser.frozen()
    rewards = {name: _to_device(reward, device) for name, reward in rewards.items()}
    judge = (judge[0], _to_device(judge[1], device)) if judge else None
    watchers = {name: _to_device(reward, device) for name, reward in watchers.items()}
    assistant = _build_assistant(config, reference, generator, device)
    apply_network_options(reference.denoiser.network, config, trained=False)
    apply_network_options(generator.network, config, trained=True)
    terms = build_terms(config, reference, assistant, rewards, device)
    engine = Engine(
        generator=generator,
        optimizer=make_optimizer(trainable_parameters(generator.network), config.learning_rate, config.optimizer),
        assistant=assistant,
        terms=terms,
        random=torch.Generator(device).manual_seed(config.seed),
        assistant_rounds=config.assistant_rounds if any(uses_assistant(one.term) for one in terms) else 0,
        max_grad_norm=config.max_grad_norm,
        precision=PRECISIONS[config.precision],
        recompute_generator=config.recompute_generator,
        mix=build_mix(config),
        supervise=config.supervise,
    )
    average = WeightAverage(generator.network, config.ema)
    return Assembled(
        engine, generator, reference, assistant, average, rewards, judge, conditions, eval_conditions, device, watchers
    )


def _build_assistant(
    config: TrainConfig, reference: Reference, generator: Generator, device: torch.device
) -> LearnedAssistant:
    load = getattr(generator, "load_assistant", None)
    saved: nn.Module | None = load(reference.denoiser.network) if load is not None else None
    try:
        denoiser = _assistant_denoiser(config, reference, saved)
    except RuntimeError as error:
        raise RunError(
            f"The generator's saved assistant does not fit the reference: {str(error).splitlines()[0]}"
        ) from error
    denoiser.network.to(device)
    apply_network_options(denoiser.network, config, trained=True)
    parameters = trainable_parameters(denoiser.network)
    optimizer = make_optimizer(parameters, config.assistant_learning_rate, config.optimizer)
    times = UniformTimes(*config.time_range)
    return LearnedAssistant(denoiser, optimizer, times, config.max_grad_norm, PRECISIONS[config.precision])


def _assistant_denoiser(config: TrainConfig, reference: Reference, saved: nn.Module | None) -> Denoiser:
    """A whole copy of the reference, or an adapter on it; either starts from the saved assistant where there is one."""
    if config.mode == "full":
        denoiser = reference.denoiser.trainable_copy()
        if saved is not None:
            plain = adapters.merged(saved) if adapters.is_adapted(saved) else saved
            denoiser.network.load_state_dict(plain.state_dict())
        return denoiser
    if saved is None or not adapters.is_adapted(saved):
        base = reference.denoiser.network if saved is None else saved.eval()
        saved = adapters.adapted(base, adapter_settings(config), config.seed + 1)
    return replace(reference.denoiser, network=saved)
