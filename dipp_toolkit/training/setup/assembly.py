"""From settings to a ready engine: resolves recommended settings, loads every part, and puts the objective together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import nn

from ...config import TrainConfig
from ...diffusion.condition import Condition
from ...diffusion.denoiser import Denoiser
from ...diffusion.schedules import discrete_times, schedule_from_config
from ...distributed import Processes
from ...distributed.gradient_average import GradientAverage
from ...distributed.sharding import Sharding
from ...errors import RequestError, RunError
from ...models import lora
from ...models.activation_offload import ActivationOffload
from ...models.attention import GraphAttention
from ...models.buckets import Buckets
from ...models.compilation import compile_blocks
from ...models.few_steps import with_stepping, with_steps
from ...models.generator_options import generator_options, guidance_option
from ...models.loading import load_assistant, load_generator, load_reference
from ...models.lora import AdapterSettings
from ...models.quantized_layers import KINDS, check_library, quantize
from ...models.shared_components.choice import check_latents
from ...models.shared_components.pair import compare_named, join
from ...models.text_encoders import prompt_encoder
from ...models.weight_sharing import trainable_parameters
from ...objective.base import asks_scores_alone, images_compared_by, takes_rewards, uses_assistant
from ...objective.build import build_mix, build_terms, term_class
from ...objective.evaluate import WeightedTerm
from ...objective.terms.for_prompts import ForPrompts
from ...objective.terms.reward import RewardTerm
from ...objective.terms.reward_sum import RewardSum
from ...prompts.conditions import Conditions, encode_prompts
from ...prompts.loading import load_prompts
from ...protocols import Assistant, AssistantSaved, ExportChecked, Generator, Reference, Reward, moved, texts
from ...rewards.groups import samples_per_prompt
from ...rewards.loading import load_reward
from ...utils.device import choose_device
from ...utils.lazy_sequence import evenly_spaced
from ...utils.precision import AUTO, FROZEN_DTYPES, PRECISIONS
from ..assistant import LearnedAssistant
from ..ema import WeightAverage
from ..engine import Engine
from ..guard import Guard
from ..optim import LossScale, apply_network_options, make_optimizer
from .assistant_start import assistant_times
from .prompt_weights import prompt_weights
from .resolve import settle_compile, settle_precision
from .run_sizes import check_surrogates, in_sizes


@dataclass(kw_only=True)
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
        watchers: other rewards that only the monitors and the comparison measure.
        sharding: what cuts networks into parts; None where each process has the whole.
        assistant_is_trained: whether the assistant was saved with the generator; it starts as the reference elsewhere.
        buckets: the sizes of the updates' batches; None where all are the networks' own.
    """

    engine: Engine
    generator: Generator
    reference: Reference
    assistant: Assistant
    average: WeightAverage
    rewards: Mapping[str, Reward]
    judge: tuple[str, Reward] | None
    conditions: Conditions
    eval_conditions: Condition
    device: torch.device
    watchers: Mapping[str, Reward] = field(default_factory=dict)
    sharding: Sharding | None = None
    assistant_is_trained: bool = False
    buckets: Buckets | None = None


def _pick_evenly(prompts: Sequence[str], count: int) -> list[str]:
    return [prompts[index] for index in evenly_spaced(len(prompts), min(count, len(prompts)))]


def _load_rewards(config: TrainConfig) -> tuple[dict[str, Reward], tuple[str, Reward] | None]:
    names = dict.fromkeys([*config.rewards, *config.floors])
    rewards = {name: load_reward(name, **config.options_of(name)) for name in names}
    if config.judge is None:
        return rewards, None
    return rewards, (config.judge, load_reward(config.judge, **config.options_of(config.judge)))


def _load_watchers(config: TrainConfig) -> dict[str, Reward]:
    names = dict.fromkeys(name for name in config.monitor_rewards if name != config.judge)
    return {name: load_reward(name, **config.options_of(name)) for name in names}


def _load_reference(config: TrainConfig) -> Reference:
    from ...models.reference import DiffusersReference, check_score, check_steps

    reference = load_reference(config.reference or "", **reference_options(config))
    if isinstance(reference, DiffusersReference):
        check_score(reference.folder, reference.family)
        check_steps(reference.folder, reference.family, config.reference_steps)
    encoder = prompt_encoder(reference)
    if encoder is not None:
        encoder.set_long_prompts(config.long_prompts, "--set long_prompts=cut")
    return reference


def reference_options(config: TrainConfig) -> dict[str, Any]:
    """What the settings ask of the reference as it is loaded."""
    dtype = {} if config.frozen_precision == "fp32" else {"dtype": FROZEN_DTYPES[config.frozen_precision]}
    return dtype | guidance_option(config, "reference")


def check_frozen_precision(config: TrainConfig, sharding: Sharding | None = None) -> None:
    """Refuse a precision of frozen weights that does not work here, before any weights are loaded.

    Args:
        config: resolved settings.
        sharding: what cuts networks into parts; None where each process has the whole.

    Raises:
        PluginError: it needs bitsandbytes, which is not installed.
        RequestError: weights are to be sharded as well.
    """
    if config.frozen_precision not in KINDS:
        return
    check_library(config.frozen_precision)
    if sharding is not None:
        raise RequestError(
            f"Weights kept as frozen_precision={config.frozen_precision} cannot be sharded: FSDP joins floating-point "
            "weights. Set frozen_precision=bf16, or launch without FSDP."
        )


def _in_few_bits(network: nn.Module, config: TrainConfig, device: torch.device) -> None:
    """Quantise a frozen network in place, where the settings ask for it."""
    if config.frozen_precision in KINDS:
        quantize(network, config.frozen_precision, device)


def adapter_settings(config: TrainConfig) -> AdapterSettings:
    """The adapters that the settings ask for."""
    return AdapterSettings(config.lora_rank, config.lora_alpha or float(config.lora_rank), config.lora_targets)


def _named_generator(config: TrainConfig, reference: Reference) -> Generator:
    from ...models.generator import DiffusersGenerator
    from ...models.reference import DiffusersReference

    pipeline = reference if isinstance(reference, DiffusersReference) else None
    if config.generator is not None:
        generator = load_generator(config.generator, **generator_options(config))
    elif pipeline is not None:
        generator = DiffusersGenerator.from_reference(pipeline, **generator_options(config))
    else:
        raise RequestError(
            "Only a diffusers pipeline can be distilled from its own network; name a generator with --generator."
        )
    return generator


def _initial_generator(generator: Generator, config: TrainConfig, reference: Reference) -> Generator:
    from ...models.generator import DiffusersGenerator
    from ...models.reference import DiffusersReference

    pipeline = reference if isinstance(reference, DiffusersReference) else None
    generator = check_generator(generator, config, reference.latent_shape)
    if config.mode == "lora":
        if pipeline is None or not isinstance(generator, DiffusersGenerator):
            raise RequestError("mode=lora works only with diffusers pipelines; use mode=full.")
        generator.adapt(adapter_settings(config), pipeline, config.seed)
    return generator


STEPPING = ("generator_steps", "step_noise", "generator_times")
"""Settings that say which steps a generator takes; what they do not say is as it was saved."""


def check_generator(generator: Generator, config: TrainConfig, latent_shape: Sequence[int]) -> Generator:
    """The generator in as many steps as the settings say, taken as they say.

    Args:
        generator: as loaded.
        config: resolved settings.
        latent_shape: the reference's.

    Raises:
        RequestError: it cannot take so many, or not so, makes other latents, could not be exported after the training,
            or is to be read out at another time than its first.
    """
    asked: dict[str, Any] = {name: getattr(config, name) for name in STEPPING if name in config.model_fields_set}
    name = config.generator or ""
    generator = with_steps(generator, asked.get("generator_steps"), name)
    generator = with_stepping(generator, asked.get("step_noise"), asked.get("generator_times"), name)
    _check_first_time(generator, config)
    check_latents(generator.latent_shape, latent_shape)
    if isinstance(generator, ExportChecked):
        generator.check_exportable()
    return generator


def _check_first_time(generator: Generator, config: TrainConfig) -> None:
    """Refuse a readout beside times that begin elsewhere."""
    from ...models.generator import DiffusersGenerator

    if config.readout is None or not isinstance(generator, DiffusersGenerator):
        return
    if generator.steps == 1 or generator.stepping.times == "even":
        return
    first = generator.times[0]
    last = len(discrete_times(schedule_from_config(generator.scheduler_config))) - 1
    if round(first * last) != round(config.readout * last):
        raise RequestError(
            f"readout={config.readout:.4g} says where pure noise is read, and the first of generator_times is "
            f"{first * last:.4g} of {last}. Leave readout out."
        )


def assemble(config: TrainConfig, processes: Processes | None = None) -> Assembled:
    """Load and join every part of a run.

    Args:
        config: resolved settings.
        processes: those that share the run; this one alone where None.

    Raises:
        RequestError: a part is unknown, unusable, or does not fit the others.
    """
    device, processes = choose_device(config.device), processes or Processes()
    if config.precision == AUTO:
        config, _ = settle_precision(config, device, processes)
    if config.compile == AUTO:
        config, _ = settle_compile(config, device, processes)
    sharding = Sharding.launched(processes, device)
    check_frozen_precision(config, sharding)
    compared = compare_named(config, processes)
    rewards, judge = _load_rewards(config)
    check_groups(config, {name: samples_per_prompt(reward) for name, reward in rewards.items()})
    watchers = _load_watchers(config)
    prompt_set = load_prompts(config.prompts or "")
    prompts, by_prompt = texts(prompt_set), prompt_weights(config, prompt_set.prompts)
    eval_prompts = texts(load_prompts(config.eval_prompts)) if config.eval_prompts else prompts
    reference = _load_reference(config)
    generator = _named_generator(config, reference)
    reference, generator, buckets = in_sizes(config, reference, generator)
    join(generator, reference, config.parts, compared)
    if config.mode == "lora":  # before anything shares its weights
        _in_few_bits(reference.denoiser.network, config, device)
    place = _placing(reference, device, sharding)
    generator = _initial_generator(generator, config, reference)
    conditions, eval_conditions = encode_prompts(
        reference, config, prompts, _pick_evenly(eval_prompts, config.eval_count), device, processes
    )
    reference.denoiser.frozen()
    rewards = {name: moved(reward, device) for name, reward in rewards.items()}
    judge = (judge[0], moved(judge[1], device)) if judge else None
    watchers = {name: moved(reward, device) for name, reward in watchers.items()}
    own = _own_assistant(config, reference, generator, device)
    denoiser, assistant_is_trained = (
        _assistant_denoiser_of(config, reference, generator) if own is None else (None, False)
    )
    if config.mode == "full":  # after generator and assistant were copied: what is trained starts from whole weights
        _in_few_bits(reference.denoiser.network, config, device)
    networks: list[tuple[nn.Module, object]] = [] if denoiser is None else [(denoiser.network, reference)]
    for network, pipeline in [*networks, (generator.network, generator), (reference.denoiser.network, reference)]:
        apply_network_options(network, config, getattr(pipeline, "family", None))
        place(network)
    precision = PRECISIONS[config.precision]
    attention = GraphAttention.chosen(device, precision, generator.network, reference.latent_shape)
    offload = ActivationOffload.chosen(config.activation_offload, device)
    assistant = own if denoiser is None else replace(_around(denoiser, config, processes, attention), offload=offload)
    assert assistant is not None
    terms = build_terms(config, reference, assistant, rewards, device, processes, by_prompt)
    _compile_rewards(config, reference, rewards, terms)
    rounds = config.assistant_rounds if any(uses_assistant(weighted.term) for weighted in terms) else 0
    engine = Engine(
        generator=generator,
        optimizer=make_optimizer(trainable_parameters(generator.network), config.learning_rate, config.optimizer),
        assistant=assistant,
        terms=terms,
        random=torch.Generator(device).manual_seed(config.seed),
        assistant_rounds=rounds,
        max_grad_norm=config.max_grad_norm,
        precision=precision,
        recompute_generator=config.recompute_generator,
        mix=build_mix(config, processes),
        supervise=config.supervise,
        accumulation=config.accumulation,
        processes=processes,
        average=GradientAverage(trainable_parameters(generator.network), processes),
        guard=Guard(config.spike, config.bad_steps),
        scale=LossScale(config.precision == "fp16"),
        attention=attention,
        offload=offload,
        reuse_samples=config.reuse_samples and rounds > 0,
    )
    average = WeightAverage(generator.network, config.ema)
    return Assembled(
        engine=engine,
        generator=generator,
        reference=reference,
        assistant=assistant,
        average=average,
        rewards=rewards,
        judge=judge,
        conditions=conditions,
        eval_conditions=eval_conditions,
        device=device,
        watchers=watchers,
        sharding=sharding,
        assistant_is_trained=assistant_is_trained,
        buckets=buckets,
    )


def _placing(reference: Reference, device: torch.device, sharding: Sharding | None) -> Callable[[nn.Module], nn.Module]:
    """Move what belongs to the reference beside its network; returns what places a network.

    Raises:
        RequestError: weights are to be sharded, and the reference is not a diffusers pipeline.
    """
    from ...models.reference import DiffusersReference

    if sharding is None:
        reference.to(device)
        return lambda network: network.to(device)
    if not isinstance(reference, DiffusersReference):
        raise RequestError("Only diffusers pipelines can be sharded; launch without FSDP.")
    reference.vae.to(device)
    reference.encoder.to(device)
    return sharding.shard


def _assistant_denoiser_of(config: TrainConfig, reference: Reference, generator: Generator) -> tuple[Denoiser, bool]:
    """What the assistant starts as, and whether it was saved with the generator."""
    saved = generator.load_assistant(reference.denoiser.network) if isinstance(generator, AssistantSaved) else None
    try:
        return _assistant_denoiser(config, reference, saved), saved is not None
    except RuntimeError as error:
        raise RunError(
            f"The generator's saved assistant does not fit the reference: {str(error).splitlines()[0]}"
        ) from error


def _own_assistant(
    config: TrainConfig, reference: Reference, generator: Generator, device: torch.device
) -> Assistant | None:
    """The assistant that the settings name in place of one that learns; None where they name none."""
    if config.assistant_model is None:
        return None
    return cast(Assistant, moved(load_assistant(config.assistant_model, generator, reference), device))


def _around(
    denoiser: Denoiser, config: TrainConfig, processes: Processes, attention: GraphAttention
) -> LearnedAssistant:
    """The assistant that trains a denoiser."""
    parameters = trainable_parameters(denoiser.network)
    return LearnedAssistant(
        denoiser,
        make_optimizer(parameters, config.assistant_learning_rate, config.optimizer),
        assistant_times(config),
        config.max_grad_norm,
        PRECISIONS[config.precision],
        GradientAverage(parameters, processes),
        LossScale(config.precision == "fp16"),
        attention,
    )


def _assistant_denoiser(config: TrainConfig, reference: Reference, saved: nn.Module | None) -> Denoiser:
    """A whole copy of the reference, or an adapter on it; either starts from the saved assistant where there is one."""
    if config.mode == "full":
        denoiser = reference.denoiser.trainable_copy()
        if saved is not None:
            plain = lora.merged(saved, torch.float32) if lora.is_adapted(saved) else saved
            denoiser.network.load_state_dict(plain.state_dict())
        return denoiser
    if saved is None or not lora.is_adapted(saved):
        base = reference.denoiser.network if saved is None else saved.eval()
        if saved is not None:
            _in_few_bits(base, config, choose_device(config.device))
        saved = lora.adapted(base, adapter_settings(config), config.seed + 1)
    return replace(reference.denoiser, network=saved)


def _compile_rewards(
    config: TrainConfig, reference: Reference, rewards: Mapping[str, Reward], terms: Sequence[WeightedTerm]
) -> None:
    """Compile what images and their gradients pass through, where the settings ask for it: decoders and rewards.

    Only passes with a graph are compiled: prompts are read, and scores without gradients taken, in batches of any size.
    """
    if config.compile not in ("on", "graphs") or not rewards:
        return
    decodes = [getattr(term.decode, "decode", term.decode) for term in differentiated_rewards(terms)]
    parts = [getattr(reference, "vae", None), *(getattr(decode, "vae", None) for decode in decodes)]
    parts += [getattr(reward, "network", reward) for reward in rewards.values()]
    for part in parts:
        if isinstance(part, nn.Module):
            compile_blocks(part, config.compile, with_graph=True)


def differentiated_rewards(terms: Sequence[WeightedTerm]) -> list[RewardTerm]:
    """The rewards that are asked for gradients: terms of their own, or in the formula of a term that takes them."""
    return rewards_of([weighted for weighted in terms if not asks_scores_alone(weighted.term)])


def rewards_of(terms: Sequence[WeightedTerm]) -> list[RewardTerm]:
    """The rewards of an objective: terms of their own, or in the formula of a term that takes them."""
    rewards: list[RewardTerm] = []
    for weighted in terms:
        inner = getattr(weighted.term, "rewards", None) if takes_rewards(weighted.term) else None
        if isinstance(inner, RewardSum):
            rewards += [term for term in inner.terms.values() if isinstance(term, RewardTerm)]
        term = weighted.term.term if isinstance(weighted.term, ForPrompts) else weighted.term
        if isinstance(term, RewardTerm):
            rewards.append(term)
    return rewards


def images_compared(engine: Engine) -> int:
    """How many images of a prompt rewards and terms are to be given together, 1 where each is looked at by itself."""
    by_rewards = [samples_per_prompt(term.reward) for term in rewards_of(engine.terms)]
    return max([*by_rewards, *(images_compared_by(weighted.term) for weighted in engine.terms)], default=1)


def check_groups(config: TrainConfig, sizes: Mapping[str, int]) -> None:
    """Rewards and terms that compare images of one prompt need whole groups in every batch.

    Args:
        config: resolved settings.
        sizes: how many images of a prompt each reward compares, by name.

    Raises:
        RequestError: the batch cuts them, holds one image a prompt, or such a reward is learned on latents.
    """
    all_sizes = {f"reward '{name}'": size for name, size in sizes.items()}
    all_sizes |= {f"term '{name}'": images_compared_by(term_class(name)) for name in config.terms}
    name = max(all_sizes, key=all_sizes.__getitem__, default="")
    if not name or all_sizes[name] == 1:
        return
    each, batch = config.noises_per_prompt or all_sizes[name], config.batch_size
    if each == 1:
        raise RequestError(
            f"With noises_per_prompt=1 the {name} has no images of one prompt to compare. Leave that setting out, for "
            f"{all_sizes[name]} images a prompt, or give it 2 or more."
        )
    if batch % each:
        raise RequestError(
            f"A batch of {batch} cuts groups of {each} images of one prompt, which the {name} compares. Set "
            f"batch_size to a multiple of {each}, such as {each * max(round(batch / each), 1)}, or noises_per_prompt "
            "to another number that divides it."
        )
    learned = next((other for other in config.latent_rewards if sizes.get(other, 1) > 1), None)
    if learned is not None:
        raise RequestError(
            f"The reward '{learned}' compares images of one prompt, so that it cannot be learned on one sample's "
            "latents. Leave its latent=true out."
        )


def noises_needed(engine: Engine, condition: Condition, seed: int, several_sizes: bool = False) -> int:
    """Samples of each prompt that the estimators in use ask for; 1 where there is none.

    Rewards that do not say whether they have a gradient are tried on latents that are noise.

    Args:
        engine: ready to step.
        condition: of the trial, as many prompts as are scored at a time.
        seed: of its latents; the run's random numbers stay as they are.
        several_sizes: whether the run's batches have more than one size.

    Raises:
        RequestError: an estimator learns on latents of one size, and the run has several.
        RunError: a reward failed.
    """
    rewards = [reward for reward in differentiated_rewards(engine.terms) if reward.estimator is not None]

    def find_out() -> None:
        for reward in rewards:
            if reward.black_box is None:
                random = torch.Generator(engine.random.device).manual_seed(seed)
                reward.find_out(engine.draw_noise(len(condition), random), condition)

    engine.processes.together(find_out)
    if several_sizes:
        check_surrogates(rewards)
    learning = [reward.estimator if reward.black_box else reward.latent for reward in rewards]
    return max((getattr(part, "noises_per_prompt", 1) for part in learning), default=1)
