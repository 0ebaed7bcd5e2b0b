"""The settings of a run: one validated model, fed by flags, `--set` and YAML alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

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
from .utils.assignments import parse_floors, parse_fraction, parse_rewards
from .utils.messages import is_broken, nearest, quoted, shown, unknown_name
from .utils.paths import user_path
from .utils.piecewise_linear import PiecewiseLinear, schedule_text, value_at
from .utils.yaml_loader import LARGEST, plain_value

OVER_OPTIMISATION = "over-optimisation"
DIVERSITY_COLLAPSE = "diversity-collapse"
OVER_SATURATION = "over-saturation"
WARNINGS = (OVER_OPTIMISATION, DIVERSITY_COLLAPSE, OVER_SATURATION)
"""Every warning there is."""
EVERY_WARNING = "all"
"""What stands for every warning where a run is told which ones stop it."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
EXPECTED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "expected a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "expected true or false"),
    **dict.fromkeys(("path_type", "string_type"), "expected a text"),
}
"""What was expected, by pydantic's name of the mistake, where its own words are not plain."""
AUTO_SCALE = "auto"
"""The `reward_scale` that is measured for a pull."""
MOST_SENTENCES = 20
"""Mistakes that a message names."""


def _finite(what: str, numbers: dict[str, float]) -> dict[str, float]:
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"the {what} of '{name}' is {number}; expected a finite number")
    return numbers


class TrainConfig(BaseModel):
    """Everything that decides a run. Two runs with equal settings on one machine give equal bits."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    recipe: str | None = Field(
        None,
        description="recipe whose settings are taken where nothing else is said: a published training, each value with "
        "its source",
    )
    generator: str | None = Field(
        None,
        description="generator to train: a registered name, file.py:Name, a pipeline or run folder, a hub id, or "
        "NAME@folder, one of your own as a run saved it; none starts from the reference's own network",
    )
    reference: str | None = Field(
        None, description="frozen multi-step diffusion the generator must stay close to, named likewise"
    )
    parts: Literal["same", "reference", "generator"] = Field(
        "same",
        description="whose text encoders, tokenizers and autoencoder are used in training and exported where generator "
        "and reference have different ones; same refuses such a pair",
    )
    rewards: dict[str, float] = Field(
        default_factory=dict, description="rewards by name with their weights; none is plain distillation"
    )
    reward_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options of each reward, by name"
    )
    prompts: str | None = Field(None, description="prompt set, file or file.py:NAME to train on")
    eval_prompts: str | None = Field(
        None, description="prompt set or file for samples and the report; the training prompts where none is named"
    )
    judge: str | None = Field(None, description="reward that only judges and is never trained on")

    steps: Count = Field(300, description="generator updates")
    batch_size: Count = Field(
        32, description="samples a network pass; an update has as many in each pass of each process"
    )
    accumulation: Count = Field(1, description="passes of each process that make an update's batch")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="random seed; the same seed gives the same bits")
    learning_rate: Positive = Field(1e-5, description="generator's Adam learning rate")
    assistant_learning_rate: Positive = Field(2e-5, description="assistant's Adam learning rate")
    assistant_rounds: Annotated[int, Field(ge=0)] = Field(
        1, description="assistant updates for each generator update (K_TA)"
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
        description="alpha_rew, multiplies every reward's weight; auto measures in the first updates what gives the "
        "rewards their pull, and holds it",
    )
    pull: Positive = Field(
        0.7,
        description="size of the rewards' joint gradient on the samples over the divergence's, at reward_scale=auto; "
        "the rewards' weights are then shares of it. Named alone, it means reward_scale=auto",
    )
    scale_schedule: str | None = Field(
        None,
        description="what the rewards' scale is multiplied by over the run: factors at generator updates, straight "
        "lines between them, as in 0:0,100:1; 1 throughout where none is named",
    )
    kl_budget: Positive | None = Field(
        None,
        description="integral KL to the reference, in nats for each dimension of a sample, that the rewards' scale is "
        "moved to hold; where none is named it stays as it is",
    )
    balance: Literal["sum", "normalised", "pcgrad", "mgda"] = Field(
        "sum",
        description="how rewards are joined: added up as weighted, each divided by its running gradient norm first, "
        "without the parts that work against each other, or along the direction that improves all",
    )
    reward_clip: Positive | None = Field(
        None, description="largest root mean square of one reward's weighted gradient on a sample; none where not named"
    )
    floors: dict[str, float] = Field(
        default_factory=dict,
        description="levels that rewards are held above while the others are maximised, by name; a reward named here "
        "alone counts nothing more",
    )
    floor_rate: Positive = Field(
        0.05, description="growth a step of a floor's multiplier, for a violation of one deviation"
    )
    black_box: Literal["surrogate", "smoothing"] = Field(
        "surrogate",
        description="what makes a gradient for rewards without one: a network fitted to their scores, or antithetic "
        "differences",
    )
    black_box_pairs: Count = Field(8, description="smoothing: antithetic pairs of scores a sample")
    black_box_radius: Positive = Field(
        0.1, description="smoothing: size of the differences, in root-mean-square latents"
    )
    black_box_side: Count = Field(8, description="smoothing: waves each way that the differences are made of")
    black_box_trust: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.4,
        description="surrogate: rank correlation with unseen differences of scores within a prompt, from which its "
        "gradient is used",
    )
    black_box_rounds: Count = Field(8, description="surrogate: its updates a step, each on 32 pairs")
    noises_per_prompt: Count | None = Field(
        None,
        description="samples of each prompt in the generator's batches, which then have that many fewer prompts; where "
        "not named, 2 where a surrogate learns a reward, and 1 elsewhere",
    )
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1.0, description="alpha_cfg, the implicit reward of classifier-free guidance; 1 for none"
    )
    guidance_schedule: str | None = Field(
        None,
        description="alpha_cfg over the run in place of guidance: values at generator updates, straight lines between "
        "them, as in 0:1,200:4.5",
    )
    term: str = Field(
        "integral_kl",
        description="the objective's own term, a divergence to the reference say; several with weights, as in "
        "integral_kl,policy_gradient=0.5, are added up",
    )
    term_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options of each term, by name: --set term.f_divergence.kind=forward_kl"
    )
    weighting: str = Field("dmd", description="time weighting of the divergence: uniform, snr or dmd")
    time_sampling: str = Field("uniform", description="how the divergence draws times: uniform or logit-normal")
    time_range: tuple[float, float] = Field(
        (0.02, 0.98),
        description="times in [0, 1] the divergence looks at, where the schedule has both image and noise",
    )
    assistant_time_sampling: str = Field(
        "uniform", description="how the assistant's training draws times: uniform or logit-normal"
    )
    assistant_time_range: tuple[float, float] | None = Field(
        None, description="times in [0, 1] the assistant learns; those of time_range where none is named"
    )
    readout: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="time at which the generator's network is read; where none is named, what its own scheduler "
        "says, or the last training time; 399/999 is timestep 399 of 0 to 999",
    )
    weights: str | None = Field(
        None,
        description="where the generator's network starts, instead of its pipeline's own weights: a file or folder, or "
        "OWNER/REPO:path/in/repo.safetensors",
    )
    lora: tuple[str, ...] = Field(
        (),
        description="LoRA files that are added to the weights where the generator's network starts, in their order, "
        "each with a scale where it is not 1: OWNER/REPO:path/in/repo.safetensors=0.125",
    )
    input_scale: Literal["unit", "sigma"] | None = Field(
        None,
        description="what the generator's network is given: noise z, or sigma(readout) z; where neither is named, what "
        "the generator's name or its own scheduler says",
    )
    generator_steps: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="network passes of the generator, re-noised in between"
    )
    supervise: Literal["last", "every"] = Field(
        "last",
        description="of several generator_steps: the terms look at the last one's samples and gradients flow through "
        "all of them, or at every one's, its input held fixed",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.98, description="decay of the weight average that is sampled and exported; 0 for none"
    )
    max_grad_norm: Positive = Field(1.0, description="clip of the generator's and the assistant's gradient norm")
    spike: Annotated[float, Field(gt=1)] = Field(
        1000.0, description="a gradient whose norm is this many times the usual one is not followed"
    )
    bad_steps: Count = Field(
        5,
        description="steps in a row with a gradient that is not finite, or a spike, after which the run stops; until "
        "then they are skipped and counted",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="autocast precision of network passes; auto is bf16 where the machine computes it and fp32 where "
        "it would emulate it, and config.yaml says which it was",
    )
    frozen_precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="precision the frozen weights are kept in: reference, decoder, text encoders, and in lora "
        "mode what the adapters sit on",
    )
    mode: Literal["full", "lora"] = Field(
        "full",
        description="what is trained: all weights of two copies of the reference's network, or two adapters on "
        "its one shared, frozen set of weights",
    )
    lora_rank: Count = Field(64, description="rank of the adapters in lora mode")
    lora_alpha: Positive | None = Field(
        None, description="adapters are multiplied by lora_alpha / lora_rank; the rank where none is named"
    )
    lora_targets: str | None = Field(
        None,
        description="regular expression over the names of the layers that get an adapter; all linear and "
        "convolution layers wider than the rank where none is given",
    )
    recompute_generator: bool = Field(
        False,
        description="run the generator again for its backward pass, so that its activations are not held while "
        "the terms run",
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute the blocks of generator and assistant in their backward passes"
    )
    channels_last: bool = Field(False, description="keep convolution weights in channels-last order")
    compile: bool = Field(False, description="torch.compile the networks")
    optimizer: Literal["adam", "fused", "8bit"] = Field(
        "adam", description="Adam, its fused kernel, or bitsandbytes' Adam with 8-bit states"
    )
    reward_batch: Annotated[int, Field(ge=0)] = Field(
        0, description="samples decoded and scored at a time inside a reward; 0 for the whole batch"
    )
    reward_resolution: Count | None = Field(
        None,
        description="pixels a side of the images that rewards see decoded; the reference's own where none is named",
    )
    decode_checkpointing: bool = Field(
        False, description="recompute the decoder's activations in a reward's backward pass"
    )
    decode_tiling: bool = Field(False, description="decode in overlapping tiles for rewards; approximate at seams")
    decoder: str | None = Field(
        None, description="folder or hub id of a tiny autoencoder that decodes for rewards in place of the reference's"
    )
    prompt_cache: Path | None = Field(
        None, description="folder of encoded prompts; DIPP_CACHE/prompts, or ~/.cache/dipp/prompts, where none is named"
    )
    long_prompts: Literal["refuse", "cut"] = Field(
        "refuse", description="what becomes of a prompt with more tokens than the text encoder reads"
    )
    deterministic: bool = Field(
        True, description="kernels that give the same bits each time, where a GPU has such; a CPU's always do"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")

    out: Path | None = Field(None, description="run folder; a fresh one below runs/ where none is named")
    push_to_hub: str | None = Field(
        None, description="hub repository, owner/name, that the finished generator is uploaded to"
    )
    resume: bool = Field(False, description="go on from the newest whole checkpoint in the run folder")
    checkpoint_every: Count = Field(100, description="generator updates between checkpoints")
    keep_checkpoints: Count = Field(2, description="newest checkpoints that are kept")
    sample_every: Count = Field(100, description="generator updates between sample grids")
    eval_count: Count = Field(64, description="prompts the before-and-after comparison uses")
    eval_seeds: Annotated[int, Field(ge=2)] = Field(
        2, description="noises a prompt in the comparison; diversity needs two"
    )
    reference_steps: Count = Field(50, description="sampling steps of the reference in the comparison")
    reference_guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None,
        description="guidance of the reference in the comparison; the training guidance, at its end, where none is "
        "named",
    )
    monitor_every: Annotated[int, Field(ge=0)] = Field(
        0,
        description="generator updates between the monitors' looks at held-out prompts; 0 for none, 50 where nothing "
        "else is recommended and the networks are somebody's own or small",
    )
    monitor_count: Annotated[int, Field(ge=2)] = Field(
        32, description="prompts of the comparison that the monitors look at, with two noises each"
    )
    monitor_rewards: tuple[str, ...] = Field(
        (), description="rewards that only watch, as the judge does, while training and in the comparison"
    )
    stop_on: tuple[str, ...] = Field(
        (),
        description="warnings that end a run: over-optimisation, diversity-collapse, over-saturation, or all; none "
        "where not named",
    )
    monitor_patience: Count = Field(2, description="looks in a row with the same warning before it ends the run")
    diagnose_every: Annotated[int, Field(ge=0)] = Field(
        0,
        description="generator updates between diagnoses of the training itself; 0 for none, 50 where monitor_every is",
    )
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        (), description="accelerate trackers to log to"
    )

    @model_validator(mode="before")
    @classmethod
    def _a_pull_means_auto(cls, values: Any) -> Any:
        """A pull alone asks for the scale that gives it; beside another scale it would say nothing."""
        if not isinstance(values, dict) or values.get("pull") is None:
            return values
        if values.get("reward_scale", AUTO_SCALE) != AUTO_SCALE:
            raise ValueError(
                "the settings pull and reward_scale are both given, and each says how strongly the rewards pull: name "
                "one of them, or reward_scale=auto"
            )
        return {**values, "reward_scale": AUTO_SCALE}

    @model_serializer(mode="wrap")
    def _without_an_idle_pull(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Beside a scale that is a number, the pull is no setting."""
        written: dict[str, Any] = handler(self)
        if self.reward_scale != AUTO_SCALE:
            written.pop("pull", None)
        return written

    @field_validator("reward_scale", mode="wrap")
    @classmethod
    def _scale_in_words(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            kinds = {one["type"] for one in error.errors()}
            if "greater_than_equal" in kinds or "finite_number" in kinds:
                raise ValueError("expected a finite number of at least 0, or auto") from error
            raise ValueError("expected a number, or auto") from error

    @field_validator("rewards", mode="before")
    @classmethod
    def _rewards_from_text(cls, value: Any) -> Any:
        return parse_rewards(value) if isinstance(value, str) else value

    @field_validator("floors", mode="before")
    @classmethod
    def _floors_from_text(cls, value: Any) -> Any:
        return parse_floors(value) if isinstance(value, str) else value

    @field_validator("readout", mode="before")
    @classmethod
    def _readout_from_text(cls, value: Any) -> Any:
        return parse_fraction(value) if isinstance(value, str) else value

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

    @field_validator("floors")
    @classmethod
    def _finite_floors(cls, value: dict[str, float]) -> dict[str, float]:
        return _finite("floor", value)

    @field_validator("reward_options", "term_options")
    @classmethod
    def _plain_options(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """They are written to `config.yaml`, and a resumed run has to read the same."""
        return {owner: plain_value(options, f"the options of {shown(owner)}") for owner, options in value.items()}

    @field_validator("*")
    @classmethod
    def _writable(cls, value: Any) -> Any:
        """What `config.yaml` cannot hold is no setting."""
        for one in value if isinstance(value, (dict, tuple)) else (value,):
            if isinstance(one, str) and is_broken(one):
                raise ValueError("it holds half of a character, so it is no text")
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

    @property
    def measures_pull(self) -> bool:
        """Whether the rewards' scale is measured for a pull."""
        return self.reward_scale == AUTO_SCALE

    @property
    def alpha_rew(self) -> float:
        """The rewards' scale as a number; 1 where it is measured, which multiplies what this does."""
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
        """The terms by name with their weights, as `term` says them.

        Raises:
            RequestError: a weight is no finite number, or a name stands twice.
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
        """Whether any update is guided, so that the reference looks at the empty prompt as well."""
        guidance = self.guidance_by_step
        return (guidance.within(self.steps) if isinstance(guidance, PiecewiseLinear) else {guidance}) != {1.0}

    @property
    def comparison_guidance(self) -> float:
        """Guidance of the reference where its samples are compared with the generator's."""
        return self.guidance_at(self.steps - 1) if self.reference_guidance is None else self.reference_guidance

    def to_yaml(self) -> str:
        """The settings as YAML, in the order of the fields."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _sentence(error: ValidationError) -> str:
    parts = []
    for one in error.errors():
        name = ".".join(str(part) for part in one["loc"] if isinstance(part, str))
        if not one["loc"]:
            message = one["msg"].removeprefix("Value error, ")
            parts.append(f"{message[:1].upper()}{message[1:]}.")
        elif one["type"] == "extra_forbidden":
            guess = nearest(name, TrainConfig.model_fields)
            parts.append(f"There is no setting '{shown(name)}'." + (f" Did you mean '{guess}'?" if guess else ""))
        else:
            message = EXPECTED.get(one["type"], one["msg"].removeprefix("Value error, "))
            parts.append(
                f"The setting {shown(name)} cannot be {quoted(one['input'])}: {message[0].lower()}{message[1:]}."
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
        raise RequestError(_sentence(error)) from error


def over(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one layer over those of another: where either says how strongly the rewards pull, the upper one does.

    A pull stands against a scale as one setting against itself: in the upper layer it takes the lower one's place.
    """
    merged = {**low, **high}
    if high.get("pull") is not None and "reward_scale" not in high:
        merged["reward_scale"] = AUTO_SCALE
    elif high.get("reward_scale", AUTO_SCALE) != AUTO_SCALE and "pull" not in high:
        merged.pop("pull", None)
    return merged
