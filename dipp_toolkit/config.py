"""The settings of a run: one validated model, fed by flags, `--set` and YAML alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from .errors import RequestError
from .utils.assignments import parse_floors, parse_fraction, parse_rewards, parse_rewards_for, read_yaml
from .utils.image_sizes import aspect_words, parse_aspect
from .utils.messages import is_broken, nearest, quoted, shown, unknown_name
from .utils.paths import user_path
from .utils.piecewise_linear import PiecewiseLinear, schedule_text, value_at
from .utils.setting_layers import AUTO_SCALE, FLAT, GROUPS, flat_name, flatten, merge, spread
from .utils.step_settings import LaidTimes, StepNoise, StepTimes, check_listed
from .utils.yaml_loader import LARGEST, plain_value

OVER_OPTIMISATION = "over-optimisation"
DIVERSITY_COLLAPSE = "diversity-collapse"
OVER_SATURATION = "over-saturation"
WARNINGS = (OVER_OPTIMISATION, DIVERSITY_COLLAPSE, OVER_SATURATION)
"""Every warning there is."""
EVERY_WARNING = "all"
"""What stands for every warning where a run is told which ones stop it."""

MEASURE_EVERY = 10
"""Updates from one that measures the gradient of each reward by itself to the next, where rewards are only added up."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
EXPECTED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "expected a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "expected true or false"),
    **dict.fromkeys(("path_type", "string_type"), "expected text"),
}
"""What was expected, by pydantic's name of the error, where its own message is not plain."""
MOST_SENTENCES = 20
"""Most errors that one message lists."""


def listed_times(value: Any) -> list[Any] | None:
    """Times that are given one by one, as a text with commas or a list; None where they are a word."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if "," in value else None
    return list(value) if isinstance(value, list | tuple) else None


def _finite(what: str, numbers: dict[str, float]) -> dict[str, float]:
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"the {what} of '{name}' is {number}; expected a finite number")
    return numbers


LATENT = "latent"
"""The option of a reward that is the toolkit's own."""
NOISES_COMPARED = 2
"""Samples of each prompt in a batch from which a latent stand-in learns: it is judged by their differences."""


class TrainConfig(BaseModel):
    """Everything that decides a run. Two runs with equal settings on one machine give equal bits.

        >>> config = TrainConfig(generator="emoji-onestep", steps=40)
        >>> config.replace(steps=2, seed=1).steps
        2

    Raises:
        RequestError: a name is unknown or a value is out of range; one sentence for each.

    The settings of a group have a grouped name too: `TrainConfig(monitor={"every": 50})` is `monitor_every=50`, and
    `config["monitor.every"]` reads it. `setting_layers.GROUPS` has them all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    recipe: str | None = Field(
        None,
        description="recipe whose settings are used unless others are given: a published training, each value with "
        "its source",
    )
    generator: str | None = Field(
        None,
        description="generator to train: a registered name, file.py:Name, a pipeline or run folder, a hub id, or "
        "NAME@folder for one of your own as a run saved it; without one, training starts from the reference's "
        "network",
    )
    reference: str | None = Field(
        None, description="frozen multi-step diffusion that the generator must stay close to, named in the same ways"
    )
    parts: Literal["same", "reference", "generator"] = Field(
        "same",
        description="whose text encoders, tokenizers and autoencoder are trained with and exported where generator "
        "and reference have different ones; same refuses such a pair",
    )
    rewards: dict[str, float] = Field(
        default_factory=dict,
        description="rewards by name with their weights; without any, training is plain distillation",
    )
    reward_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="options of each reward, by name; latent=true is the toolkit's, and learns the reward on latents",
    )
    prompts: str | None = Field(None, description="prompt set, file or file.py:NAME to train on")
    eval_prompts: str | None = Field(
        None, description="prompt set or file for samples and the report; the training prompts by default"
    )
    judge: str | None = Field(None, description="reward that judges the result and is never trained on")

    steps: Count = Field(300, description="generator updates")
    batch_size: Count = Field(32, description="samples in a micro-batch, on each process")
    accumulation: Count = Field(1, description="micro-batches of each process that make up an update's batch")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="random seed; the same seed gives the same bits")
    learning_rate: Positive = Field(1e-5, description="generator's Adam learning rate")
    assistant_learning_rate: Positive = Field(2e-5, description="assistant's Adam learning rate")
    assistant_rounds: Annotated[int, Field(ge=0)] = Field(
        1, description="assistant updates for each generator update (K_TA)"
    )
    assistant_model: str | None = Field(
        None,
        description="score model of the generator's samples in place of the assistant that learns as a copy of the "
        "reference: file.py:Name or module:Name, a class or function that is given the generator and the reference and "
        "makes an Assistant, such as one that knows the score exactly",
    )
    reuse_samples: bool = Field(
        False,
        description="let the assistant's last update before a generator update learn from the samples of the previous "
        "generator update, as in DMD2, which saves a pass of the generator; fresh samples by default",
    )
    assistant_warmup: Annotated[int, Field(ge=0)] = Field(
        0, description="assistant updates before the first generator update"
    )
    warmup: Annotated[int, Field(ge=0)] = Field(
        0, description="generator updates over which its learning rate rises from 0"
    )
    cooldown: Annotated[int, Field(ge=0)] = Field(
        0, description="generator updates at the end over which its learning rate falls to 0"
    )
    reward_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        1.0,
        description="alpha_rew, which multiplies every reward's weight; auto measures in the first updates the scale "
        "that gives the rewards their pull, and keeps it",
    )
    pull: Positive = Field(
        0.7,
        description="size of the rewards' joint gradient on the samples over the divergence's, at reward_scale=auto; "
        "the rewards' weights are then shares of it. Given alone, it means reward_scale=auto",
    )
    scale_schedule: str | None = Field(
        None,
        description="what the rewards' scale is multiplied by over the run: factors at generator updates, linear in "
        "between, as in 0:0,100:1; 1 throughout by default",
    )
    kl_budget: Positive | None = Field(
        None,
        description="integral KL to the reference, in nats per dimension of a sample, that the rewards' scale is "
        "adjusted to hold; without it the scale is not adjusted",
    )
    balance: Literal["sum", "normalised", "pcgrad", "mgda"] = Field(
        "sum",
        description="how rewards are combined: their weighted sum, each divided by its running gradient norm first, "
        "without the parts that work against each other, or along the direction that improves all",
    )
    reward_clip: Positive | None = Field(
        None, description="largest root mean square of one reward's weighted gradient on a sample; no limit by default"
    )
    floors: dict[str, float] = Field(
        default_factory=dict,
        description="levels that rewards are held above while the others are maximised, by name; a reward named only "
        "here has no other effect",
    )
    reward_for: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="weights of rewards for the prompts of a category, as in 'category=text: ocr=1, hps=0.5; "
        "category=people: imagereward=2'; all other prompts have the weights of rewards, which may be 0",
    )
    floor_rate: Positive = Field(
        0.05, description="growth of a floor's multiplier per step, for a violation of one standard deviation"
    )
    black_box: Literal["surrogate", "smoothing"] = Field(
        "surrogate",
        description="how a gradient is estimated for rewards without one: a network fitted to their scores, or "
        "antithetic differences",
    )
    black_box_pairs: Count = Field(8, description="smoothing: antithetic pairs of scores per sample")
    black_box_radius: Positive = Field(
        0.1, description="smoothing: size of the differences, in root-mean-square latents"
    )
    black_box_side: Count = Field(8, description="smoothing: waves along each side that the differences are made of")
    black_box_trust: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.4,
        description="surrogate: rank correlation with unseen differences of scores within a prompt from which on its "
        "gradient is used",
    )
    black_box_rounds: Count = Field(8, description="surrogate: its updates per step, each on 32 pairs")
    latent_every: Annotated[int, Field(ge=2)] = Field(
        3, description="of so many samples one is scored by the true reward while what stands in for it is trusted"
    )
    latent_rank: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.0, description="rank correlation with unseen differences of scores within a prompt that trust requires"
    )
    latent_cosine: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.05, description="cosine with unseen gradients of the true reward that trust requires"
    )
    noises_per_prompt: Count | None = Field(
        None,
        description="samples of each prompt in the generator's batches, which then have that many fewer prompts; by "
        "default 4 where a term or a reward compares images of a prompt, 2 where a surrogate or a latent stand-in "
        "learns a reward, and 1 otherwise",
    )
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1.0, description="alpha_cfg, the implicit reward of classifier-free guidance; 1 for none"
    )
    guidance_schedule: str | None = Field(
        None,
        description="alpha_cfg over the run in place of guidance: values at generator updates, linear in between, as "
        "in 0:1,200:4.5",
    )
    term: str = Field(
        "integral_kl",
        description="the objective's own term, such as a divergence to the reference; several with weights, as in "
        "integral_kl,policy_gradient=0.5, are added up",
    )
    term_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options of each term, by name: --set term.f_divergence.kind=forward_kl"
    )
    weighting: str = Field("dmd", description="time weighting of the divergence: uniform, snr or dmd")
    time_sampling: str = Field("uniform", description="how the divergence draws times: uniform or logit-normal")
    time_range: tuple[float, float] = Field(
        (0.02, 0.98),
        description="times in [0, 1] that the divergence is evaluated at, where the schedule has both image and noise",
    )
    assistant_time_sampling: str = Field(
        "uniform", description="how the assistant's training draws times: uniform or logit-normal"
    )
    assistant_time_range: tuple[float, float] | None = Field(
        None, description="times in [0, 1] that the assistant learns; time_range by default"
    )
    readout: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="time in (0, 1] that the generator's network is evaluated at; by default what its own scheduler "
        "says, or the last training time; 399/999 is timestep 399 of 0 to 999",
    )
    weights: str | None = Field(
        None,
        description="weights that the generator's network starts from instead of its pipeline's own: a file or "
        "folder, or OWNER/REPO:path/in/repo.safetensors",
    )
    lora: tuple[str, ...] = Field(
        (),
        description="LoRA files that are added to the generator's starting weights, in order, each with a scale "
        "unless it is 1: OWNER/REPO:path/in/repo.safetensors=0.125",
    )
    input_scale: Literal["unit", "sigma"] | None = Field(
        None,
        description="input of the generator's network: noise z, or sigma(readout) z; by default what the generator's "
        "name or its own scheduler says",
    )
    guidance_embedding: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None,
        description="guidance that networks with guidance distilled into an input (FLUX.1-dev's) are told: reference, "
        "assistant and generator alike, in training, sampling and the exported pipeline's call; by default what the "
        "generator's folder records, or the stock pipeline's own",
    )
    resolution: Count | None = Field(
        None,
        description="side in pixels of a square of the area of a run's images, trained, shown and exported; by default "
        "the model's own, or what the generator's folder records",
    )
    aspects: tuple[str, ...] = Field(
        (),
        description="aspects of a run's images, width to height, as in 1:1,4:3,3:4,16:9: each update's batch has one "
        "of them, drawn by the seed, and the first is what is measured and shown; one square by default",
    )
    generator_steps: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="network passes of the generator, noised in between"
    )
    step_noise: StepNoise = Field(
        "fresh",
        description="with several generator_steps: fresh noise between them, or none for deterministic steps, DDIM's "
        "and Euler's",
    )
    generator_times: StepTimes = Field(
        "even",
        description="with several generator_steps: their times: even, stock for those that the generator's own "
        "scheduler lays for so many steps, or one for each, decreasing, as in 999,749,499,249: timesteps of a "
        "diffusion, noise levels of flow matching, which begin at 1",
    )
    supervise: Literal["last", "every"] = Field(
        "last",
        description="with several generator_steps: the terms are evaluated on the last one's samples and gradients "
        "flow through all of them, or on every one's, its input held fixed",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.98, description="decay of the weight average that is sampled from and exported; 0 for none"
    )
    max_grad_norm: Positive = Field(1.0, description="clip of the generator's and the assistant's gradient norm")
    spike: Annotated[float, Field(gt=1)] = Field(
        1000.0, description="a gradient whose norm is this many times the usual one is skipped"
    )
    bad_steps: Count = Field(
        5,
        description="consecutive steps with a gradient that is not finite, or a spike, after which the run stops; "
        "until then they are skipped and counted",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="autocast precision of network passes; auto is bf16 where processor and libraries report that they "
        "compute it natively and fp32 elsewhere, and config.yaml records which it was",
    )
    frozen_precision: Literal["fp32", "bf16", "fp16", "int8", "nf4"] = Field(
        "fp32",
        description="precision that frozen weights are kept in: reference, decoder, text encoders, and in lora mode "
        "the weights under the adapters; int8 and nf4 (8 and 4.5 bits, with bitsandbytes) are for linear layers of "
        "the reference and under adapters, and leave all else in bf16",
    )
    reward_tf32: bool = Field(
        False,
        description="let a GPU round the factors of rewards' float32 products to TF32 (10 bits) in training steps; "
        "rewards in environments of their own, comparisons and monitors stay in float32",
    )
    mode: Literal["full", "lora"] = Field(
        "full",
        description="what is trained: all weights of two copies of the reference's network, or two adapters on its "
        "one shared, frozen set of weights",
    )
    lora_rank: Count = Field(64, description="rank of the adapters in lora mode")
    lora_alpha: Positive | None = Field(
        None, description="adapters are multiplied by lora_alpha / lora_rank; the rank by default"
    )
    lora_targets: str | None = Field(
        None,
        description="regular expression over the names of the layers that get an adapter; by default all linear and "
        "convolution layers wider than the rank",
    )
    recompute_generator: bool = Field(
        False,
        description="run the generator again for its backward pass, so that its activations are not kept while the "
        "terms are evaluated",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="recompute the blocks of generator and assistant in their backward passes, and of the reference "
        "where a term differentiates through it",
    )
    activation_offload: bool = Field(
        False,
        description="keep what generator and assistant hold for their backward passes in the host's memory; no effect "
        "on a CPU",
    )
    channels_last: bool = Field(False, description="keep convolution weights in channels-last order")
    compile: Literal["auto", "on", "off", "graphs"] = Field(
        "auto",
        description="compile the repeated blocks of networks, decoder and rewards in training steps; graphs also "
        "replays CUDA graphs; auto is on where a run on a GPU is planned to earn back the time of compiling and off "
        "elsewhere, and config.yaml records which it was; true and false mean on and off",
    )
    optimizer: Literal["adam", "fused", "8bit"] = Field(
        "adam", description="Adam, its fused kernel, or bitsandbytes' Adam with 8-bit states"
    )
    reward_batch: Annotated[int, Field(ge=0)] = Field(
        0, description="samples decoded and scored at a time inside a reward; 0 for the whole batch"
    )
    reward_resolution: Count | None = Field(
        None,
        description="pixels along a side of the images that rewards get; the reference's own resolution by default",
    )
    decode_checkpointing: bool = Field(
        False, description="recompute the decoder's activations in a reward's backward pass"
    )
    decode_tiling: bool = Field(
        False,
        description="decode in overlapping tiles for rewards; approximate at seams; meant for use with "
        "decode_checkpointing, without which all tiles' graphs are kept, in more memory than without tiles",
    )
    decoder: str | None = Field(
        None, description="folder or hub id of a tiny autoencoder that decodes for rewards instead of the reference's"
    )
    prompt_cache: Path | None = Field(
        None, description="folder of encoded prompts; by default DIPP_CACHE/prompts, or ~/.cache/dipp/prompts"
    )
    long_prompts: Literal["refuse", "cut"] = Field(
        "refuse", description="whether a prompt with more tokens than the text encoder reads is refused or cut"
    )
    deterministic: bool = Field(
        True, description="use kernels of a GPU that give the same bits each time; a CPU's always do"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")

    out: Path | None = Field(None, description="run folder; a new one below runs/ by default")
    push_to_hub: str | None = Field(
        None, description="hub repository, owner/name, that the finished generator is uploaded to"
    )
    resume: bool = Field(False, description="resume from the newest complete checkpoint in the run folder")
    checkpoint_every: Count = Field(100, description="generator updates between checkpoints")
    keep_checkpoints: Count = Field(2, description="how many of the newest checkpoints are kept")
    sample_every: Count = Field(100, description="generator updates between sample grids")
    eval_count: Count = Field(64, description="prompts of the comparison before and after")
    eval_seeds: Annotated[int, Field(ge=2)] = Field(
        2, description="noises per prompt in the comparison; diversity needs two"
    )
    reference_steps: Count = Field(50, description="sampling steps of the reference in the comparison")
    reference_guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None,
        description="guidance of the reference in the comparison; by default the training guidance as it is at the end",
    )
    monitor_every: Annotated[int, Field(ge=0)] = Field(
        0,
        description="generator updates between the monitors' measurements on held-out prompts; 0 for none, 50 where "
        "nothing else is recommended and the networks are a user's own or small",
    )
    monitor_count: Annotated[int, Field(ge=2)] = Field(
        32, description="prompts of the comparison that the monitors measure on, with two noises each"
    )
    monitor_rewards: tuple[str, ...] = Field(
        (), description="rewards that are measured and not trained on, as the judge is, in training and the comparison"
    )
    stop_on: tuple[str, ...] = Field(
        (),
        description="warnings that end a run: over-optimisation, diversity-collapse, over-saturation, or all; none by "
        "default",
    )
    monitor_patience: Count = Field(
        2, description="consecutive measurements with the same warning before it ends the run"
    )
    diagnose_every: Annotated[int, Field(ge=0)] = Field(
        0,
        description="generator updates between diagnoses of the training itself; 0 for none, 50 where monitor_every "
        "is 50",
    )
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        (), description="accelerate trackers to log to"
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RequestError(_sentence(error, values)) from None

    if not TYPE_CHECKING:  # of a frozen model, type checkers know that nothing can be set

        def __setattr__(self, name: str, value: Any) -> None:
            if name in type(self).model_fields:
                raise RequestError(
                    f"Settings do not change; make others of them: config.replace({name}={quoted(value)})."
                )
            super().__setattr__(name, value)

    @model_validator(mode="before")
    @classmethod
    def _flat_with_scale(cls, values: Any) -> Any:
        """Flat names only; a pull alone asks for the scale that gives it, and contradicts any other scale."""
        if not isinstance(values, dict):
            return values
        values = flatten(values)
        if values.get("pull") is None:
            return values
        if values.get("reward_scale", AUTO_SCALE) != AUTO_SCALE:
            raise ValueError(
                "the settings pull and reward_scale are both given, and each sets how strongly the rewards pull: give "
                "one of them, or reward_scale=auto"
            )
        return {**values, "reward_scale": AUTO_SCALE}

    @model_validator(mode="before")
    @classmethod
    def _as_many_steps_as_times(cls, values: Any) -> Any:
        """Times that are given one by one say how many steps there are."""
        times = listed_times(values.get("generator_times")) if isinstance(values, dict) else None
        if times is None:
            return values
        if not 2 <= len(times) <= 8:
            raise ValueError(
                f"generator_times has {len(times)} time{'s' * (len(times) != 1)}; expected one for each of 2 to 8 "
                "steps, as in 999,749,499,249; a single step is read at readout"
            )
        if values.get("generator_steps", len(times)) not in (len(times), str(len(times))):
            raise ValueError(
                f"generator_times has {len(times)} times, and generator_steps is {values['generator_steps']}: give one "
                "time for each step, or leave generator_steps out"
            )
        return {**values, "generator_steps": len(times)}

    @model_validator(mode="after")
    def _activations_in_one_place(self) -> TrainConfig:
        if self.activation_offload and self.compile == "graphs":
            raise ValueError(
                "activation_offload frees nothing with compile=graphs, which keeps activations in memory of the CUDA "
                "graphs' own: set compile=on, or leave activation_offload out"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_an_idle_pull(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Where the scale is a number, the pull has no effect and is not written."""
        written: dict[str, Any] = handler(self)
        if self.reward_scale != AUTO_SCALE:
            written.pop("pull", None)
        return written

    @field_validator("reward_scale", mode="wrap")
    @classmethod
    def _plain_scale_error(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            kinds = {mistake["type"] for mistake in error.errors()}
            if "greater_than_equal" in kinds or "finite_number" in kinds:
                raise ValueError("expected a finite number of at least 0, or auto") from error
            raise ValueError("expected a number, or auto") from error

    @field_validator("compile", mode="before")
    @classmethod
    def _compile_from_switch(cls, value: Any) -> Any:
        """What a switch said before there were four choices, and what YAML makes of a bare on or off."""
        if isinstance(value, bool):
            return "on" if value else "off"
        return {"true": "on", "false": "off"}.get(value, value) if isinstance(value, str) else value

    @field_validator("rewards", mode="before")
    @classmethod
    def _rewards_from_text(cls, value: Any) -> Any:
        return parse_rewards(value) if isinstance(value, str) else value

    @field_validator("reward_for", mode="before")
    @classmethod
    def _rewards_for_from_text(cls, value: Any) -> Any:
        return parse_rewards_for(value) if isinstance(value, str) else value

    @field_validator("floors", mode="before")
    @classmethod
    def _floors_from_text(cls, value: Any) -> Any:
        return parse_floors(value) if isinstance(value, str) else value

    @field_validator("readout", mode="before")
    @classmethod
    def _readout_from_text(cls, value: Any) -> Any:
        return parse_fraction(value) if isinstance(value, str) else value

    @field_validator("generator_times", mode="before")
    @classmethod
    def _times_from_text(cls, value: Any) -> Any:
        times = listed_times(value)
        if times is None:
            if value not in get_args(LaidTimes):
                raise ValueError("expected even, stock, or decreasing numbers, as in 999,749,499,249")
            return value
        try:
            numbers = tuple(float(time) for time in times)
        except (TypeError, ValueError) as error:
            raise ValueError("expected even, stock, or decreasing numbers, as in 999,749,499,249") from error
        check_listed(numbers)
        return numbers

    @field_validator("scale_schedule", "guidance_schedule", mode="before")
    @classmethod
    def _schedule_as_text(cls, value: Any) -> Any:
        return schedule_text(value)

    @field_validator("trackers", "monitor_rewards", "stop_on", "lora", mode="before")
    @classmethod
    def _names_from_text(cls, value: Any) -> Any:
        if value is None:  # what YAML makes of an empty text
            return ()
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("aspects", mode="before")
    @classmethod
    def _aspects_from_text(cls, value: Any) -> Any:
        """As the setting is written: `"1:1, 4:3"`, a list, or what YAML made of 4:3 without quotes."""
        if isinstance(value, str):
            value = list(filter(None, map(str.strip, value.split(","))))
        if isinstance(value, int):
            value = [value]
        words = [aspect_words(one) for one in value or ()] if isinstance(value, list | tuple | None) else value
        return tuple(dict.fromkeys(words)) if isinstance(words, list) else words

    @field_validator("aspects")
    @classmethod
    def _possible_aspects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for aspect in value:
            try:
                parse_aspect(aspect)
            except RequestError as error:
                raise ValueError(str(error).removesuffix(".")) from error
        return value

    @field_validator("stop_on")
    @classmethod
    def _known_warnings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in (*WARNINGS, EVERY_WARNING):
                raise ValueError(unknown_name("warning", name, (*WARNINGS, EVERY_WARNING)).removesuffix("."))
        return WARNINGS if EVERY_WARNING in value else tuple(dict.fromkeys(value))

    @field_validator("time_range", "assistant_time_range", mode="before")
    @classmethod
    def _range_from_text(cls, value: Any) -> Any:
        if value == "null":  # as a command writes that none is named
            return None
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("time_range", "assistant_time_range")
    @classmethod
    def _range_in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 1:
            raise ValueError("expected two times with 0 <= low < high <= 1")
        return value

    @field_validator("rewards")
    @classmethod
    def _finite_weights(cls, value: dict[str, float]) -> dict[str, float]:
        return _finite("weight", value)

    @field_validator("reward_for")
    @classmethod
    def _finite_weights_for(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for key, weights in value.items():
            if not key.startswith("category=") or key == "category=" or not weights:
                raise ValueError(f"'{shown(key)}' names no prompts; expected category=NAME with rewards and weights")
            _finite("weight", weights)
        return value

    @field_validator("floors")
    @classmethod
    def _finite_floors(cls, value: dict[str, float]) -> dict[str, float]:
        return _finite("floor", value)

    @field_validator("reward_options", "term_options")
    @classmethod
    def _plain_options(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Options are written to `config.yaml`, and a resumed run has to read back the same."""
        return {owner: plain_value(options, f"the options of {shown(owner)}") for owner, options in value.items()}

    @field_validator("reward_options")
    @classmethod
    def _latent_or_not(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for owner, options in value.items():
            if not isinstance(options.get(LATENT, False), bool):
                raise ValueError(
                    f"the option latent of {shown(owner)} is {shown(str(options[LATENT]))}: expected true or false"
                )
        return value

    @field_validator("*")
    @classmethod
    def _writable(cls, value: Any) -> Any:
        """Refuse what `config.yaml` cannot hold."""
        for part in value if isinstance(value, (dict, tuple)) else (value,):
            if isinstance(part, str) and is_broken(part):
                raise ValueError("it contains half of a character, so it cannot be written")
        if isinstance(value, int) and value >= LARGEST:
            raise ValueError("expected a number below 2^63")
        return value

    @field_validator("out", "prompt_cache")
    @classmethod
    def _possible_path(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                user_path(value)
            except RequestError as error:
                raise ValueError(str(error).removesuffix(".")) from error
        return value

    def __getitem__(self, name: str) -> Any:
        """A setting by either of its names, `monitor.every` or `monitor_every`.

        Raises:
            RequestError: there is none of this name.
        """
        if flat_name(name) not in TrainConfig.model_fields:
            raise RequestError(no_such_setting(name))
        return getattr(self, flat_name(name))

    def options_of(self, reward: str) -> dict[str, Any]:
        """The options that a reward is made with: those given, without the toolkit's own."""
        return {name: value for name, value in self.reward_options.get(reward, {}).items() if name != LATENT}

    @property
    def largest_weights(self) -> dict[str, float]:
        """Each reward's weight, for those prompts where it is largest in size."""
        weights = dict(self.rewards)
        for own in self.reward_for.values():
            for name, weight in own.items():
                weights[name] = max(weights.get(name, 0.0), weight, key=abs)
        return weights

    @property
    def latent_rewards(self) -> tuple[str, ...]:
        """The rewards that are learned on latents."""
        return tuple(name for name, options in self.reward_options.items() if options.get(LATENT, False))

    @property
    def measures_pull(self) -> bool:
        """Whether the rewards' scale is measured for a pull."""
        return self.reward_scale == AUTO_SCALE

    @property
    def alpha_rew(self) -> float:
        """The rewards' scale as a number; 1 where it is measured, as the measured scale multiplies this one."""
        return 1.0 if self.reward_scale == AUTO_SCALE else float(self.reward_scale)

    @property
    def strength(self) -> str:
        """How strongly the rewards pull, in words: `pull 0.7`, or `scale 80`, and what changes it over the run."""
        changes = "" if self.scale_schedule is None else f", times {self.scale_schedule}"
        changes += "" if self.kl_budget is None else f", moved to hold a KL of {self.kl_budget:g} nats a dimension"
        return (f"pull {self.pull:g}" if self.measures_pull else f"scale {self.alpha_rew:g}") + changes

    @property
    def scale_by_step(self) -> PiecewiseLinear | None:
        """Factors of the rewards' scale at generator updates; None for 1 throughout."""
        return None if self.scale_schedule is None else PiecewiseLinear.parse(self.scale_schedule)

    @property
    def terms(self) -> dict[str, float]:
        """The terms by name with their weights, read from `term`.

        Raises:
            RequestError: a weight is not a finite number, or a name appears twice.
        """
        return parse_rewards(self.term, kind="term")

    @property
    def guidance_by_step(self) -> float | PiecewiseLinear:
        r"""$\alpha_{cfg}$: a number, or one for each generator update."""
        return self.guidance if self.guidance_schedule is None else PiecewiseLinear.parse(self.guidance_schedule)

    def guidance_at(self, step: int) -> float:
        r"""$\alpha_{cfg}$ at a generator update, the first being 0."""
        return value_at(self.guidance_by_step, step)

    @property
    def is_guided(self) -> bool:
        """Whether any update is guided, so that the reference is evaluated for the empty prompt as well."""
        guidance = self.guidance_by_step
        return (guidance.within(self.steps) if isinstance(guidance, PiecewiseLinear) else {guidance}) != {1.0}

    @property
    def comparison_guidance(self) -> float:
        """Guidance of the reference where its samples are compared with the generator's."""
        return self.guidance_at(self.steps - 1) if self.reference_guidance is None else self.reference_guidance

    @classmethod
    def from_yaml(cls, path: str | Path, **changes: Any) -> TrainConfig:
        """Settings from a YAML file, such as a run's own `config.yaml`.

        Args:
            path: of the file.
            changes: settings that are others than the file's.

        Raises:
            RequestError: the file cannot be used, a name is unknown or a value is out of range.
        """
        return make_config(merge(read_yaml(user_path(path)), changes))

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with other values of some settings; those that nobody gave are still to be recommended.

        Options of rewards and terms are replaced one by one.

        Raises:
            RequestError: a name is unknown or a value is out of range.
        """
        return make_config(merge({name: getattr(self, name) for name in self.model_fields_set}, changes))

    def to_yaml(self) -> str:
        """The settings as YAML, in the order of the fields."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def no_such_setting(name: str) -> str:
    """A sentence that says a setting is unknown, with the nearest name there is in the same spelling."""
    if name in GROUPS:
        members = ", ".join(f"{name}.{member}" for member in GROUPS[name])
        return f"'{name}' is a group of settings, not one of them. Set {members}."
    guess = nearest(name, FLAT if "." in name else TrainConfig.model_fields) or nearest(
        name, (*TrainConfig.model_fields, *FLAT)
    )
    return f"There is no setting '{shown(name)}'." + (f" Did you mean '{guess}'?" if guess else "")


def _sentence(error: ValidationError, values: Mapping[str, Any]) -> str:
    """What is wrong with settings, each called by the name it was given by."""
    as_given = {flat_name(name): name for name in spread(values)}
    parts = []
    for mistake in error.errors():
        path = [str(part) for part in mistake["loc"] if isinstance(part, str)]
        name = ".".join([as_given.get(path[0], path[0]), *path[1:]]) if path else ""
        if not mistake["loc"]:
            message = mistake["msg"].removeprefix("Value error, ")
            parts.append(f"{message[:1].upper()}{message[1:]}.")
        elif mistake["type"] == "extra_forbidden":
            parts.append(no_such_setting(name))
        else:
            message = EXPECTED.get(mistake["type"], mistake["msg"].removeprefix("Value error, "))
            parts.append(
                f"The setting {shown(name)} cannot be {quoted(mistake['input'])}: {message[0].lower()}{message[1:]}."
            )
    left = len(parts) - MOST_SENTENCES
    return " ".join(parts[:MOST_SENTENCES]) + (f" And {left} more." if left > 0 else "")


def make_config(values: Mapping[str, Any]) -> TrainConfig:
    """Validate settings.

    Raises:
        RequestError: a name is unknown or a value is out of range; one sentence for each.
    """
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        raise RequestError(_sentence(error, values)) from error
