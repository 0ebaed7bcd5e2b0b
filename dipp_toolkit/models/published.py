"""Published pipelines by name: each is one record of where its files are, how it is loaded and its licence.

A plugin lists its records and registers them with the functions here; another name is one more record. Importing it
loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..registry import get_registry
from ..utils.licences import Licence, Origin
from ..utils.step_settings import USUAL, StepNoise, Stepping, StepTimes
from .files.download_lists import JOINED

if TYPE_CHECKING:
    from ..hooks import Register
    from .blueprints import PipelineBlueprint
    from .generator import DiffusersGenerator

SETTINGS: dict[str, Any] = {
    "guidance": 4.5,
    "reference_guidance": 4.5,
    "reward_scale": "auto",
    "mode": "lora",
    "batch_size": 4,
    "eval_count": 16,
}
"""Starting points for networks of this size, not results of a search."""

LARGE_SETTINGS: dict[str, Any] = {
    **SETTINGS,
    "frozen_precision": "bf16",
    "batch_size": 1,
    "recompute_generator": True,
    "gradient_checkpointing": True,
    "decode_checkpointing": True,
}
"""For networks of several billion parameters, so that a step fits a device."""


@dataclass(frozen=True)
class PublishedPipeline:
    """What a published generator and a published reference have in common.

    Attributes:
        name: what people type.
        summary: one line for `dipp plugins`.
        pipeline: the repository of the whole pipeline; of `weights` or `lora` the one that they are made for.
        configs: folder of the configurations as published, without weights.
        licence: of the weights that the network is made of.
        defaults: settings recommended with it.
        base_licence: of the repository `pipeline`, where that is another one.
        parameters: of its network, in billions, as its authors state and round it; None where they state none.
        network: address of the network with its configuration, where it is published without the rest of a pipeline.
    """

    name: str
    summary: str
    pipeline: str
    configs: Path
    licence: Licence
    defaults: Mapping[str, Any] = field(default_factory=dict)
    base_licence: Licence | None = None
    parameters: float | None = field(default=None, kw_only=True)
    network: str | None = field(default=None, kw_only=True)

    @property
    def source(self) -> str:
        """What the pipeline is loaded from."""
        return self.pipeline if self.network is None else f"{self.pipeline}{JOINED}{self.network}"

    @property
    def hub(self) -> str:
        """The repository that the network's weights are published in."""
        return (self.network or self.pipeline).partition(":")[0]

    @property
    def origin(self) -> Origin:
        """The network's weights' repository and licence."""
        return Origin(self.hub, self.licence)

    def blueprint(self) -> PipelineBlueprint:
        """The pipeline without its weights."""
        from .blueprints import PipelineBlueprint

        return PipelineBlueprint(self.configs, self.source)


@dataclass(frozen=True)
class PublishedReference(PublishedPipeline):
    """A published multi-step pipeline. Called, it loads from the hub's cache or the hub.

    Attributes:
        shrink: by what the sides of its images are divided, for generators of other ones than it was made for.
        guided: whether its guidance is that of two passes. The network of a turbo model was distilled without the empty
            prompt: its guidance is inside, and a second pass with that prompt means nothing.
    """

    shrink: int | Fraction = 1
    guided: bool = field(default=True, kw_only=True)

    def __call__(self, **options: Any) -> Any:
        """The reference.

        Raises:
            RequestError: the weights are not here and cannot be fetched; the message says how to.
        """
        from .reference import DiffusersReference

        return DiffusersReference.load(self.source, shrink=self.shrink, **options)

    def blueprint(self) -> PipelineBlueprint:
        from .blueprints import PipelineBlueprint

        return PipelineBlueprint(self.configs, self.source, self.shrink)


@dataclass(frozen=True)
class PublishedGenerator(PublishedPipeline):
    """A published generator of one step or a few. Called, it loads from the hub's cache or the hub.

    Attributes:
        reference: name of the reference that it is aligned against.
        readout: the time in [0, 1] at which its network is read; where None, that of the pipeline's scheduler.
        input_scale: `"unit"` for a network that was given z, `"sigma"` for sigma(t*) z; where None, that of the
            pipeline's scheduler.
        weights: address of the network's weights, where they are published without a pipeline.
        lora: addresses of LoRA files, each with its scale, that are fused into the weights.
        prediction: what the network predicts, where the pipeline's scheduler says something else.
        steps: that it was made for.
        step_noise: between several of them: `"fresh"`, or `"none"` where they are deterministic.
        times: of several of them; see `generator_times` in `dipp_toolkit.config`.
        scheduler: settings of its own scheduler, where the pipeline's says others.
    """

    reference: str = ""
    readout: float | None = None
    input_scale: str | None = None
    weights: str | None = None
    lora: tuple[str, ...] = ()
    prediction: str | None = None
    steps: int = field(default=1, kw_only=True)
    step_noise: StepNoise = field(default="fresh", kw_only=True)
    times: StepTimes = field(default="even", kw_only=True)
    scheduler: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @property
    def hub(self) -> str:
        addresses = (*self.lora, self.weights) if self.lora else (self.weights,)
        return next((address.partition(":")[0] for address in addresses if address), super().hub)

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the generator is loaded with: what the record says, and what somebody gave in its stead.

        LoRA files that somebody gave are fused on top of the record's own.
        """
        own: dict[str, Any] = {"readout": self.readout, "input_scale": self.input_scale, "weights": self.weights}
        merged = {name: value for name, value in own.items() if value is not None} | dict(given)
        given_lora = given.get("lora", ())
        lora = (*self.lora, *([given_lora] if isinstance(given_lora, str) else given_lora))
        return merged | ({"lora": lora} if lora else {})

    def __call__(self, **options: Any) -> Any:
        """The generator, `options` as `DiffusersGenerator.load` takes them.

        Raises:
            RequestError: the weights are not here and cannot be fetched; the message says how to.
        """
        from .generator import DiffusersGenerator

        return self.as_made(DiffusersGenerator.load(self.source, **self.options(options)))

    def as_made(self, generator: DiffusersGenerator) -> DiffusersGenerator:
        """A generator of the pipeline, read and in the steps as it was made for.

        Args:
            generator: as loaded with `options`.
        """
        from dataclasses import replace

        own = dict(self.scheduler) | ({} if self.prediction is None else {"prediction_type": self.prediction})
        if own:
            generator = replace(generator, scheduler_config={**generator.scheduler_config, **own})
        if self.steps == 1:
            return generator
        return generator.in_steps(self.steps).with_stepping(self.stepping)

    @property
    def stepping(self) -> Stepping:
        """How it takes its steps, where it takes several."""
        return Stepping(self.step_noise, self.times)


def check_guidance(reference: str, guidance: float, setting: str) -> None:
    """Refuse guidance of two passes for a published reference that was distilled without it.

    Args:
        reference: as somebody named it.
        guidance: 1 for none.
        setting: that gives it, for the message.

    Raises:
        RequestError: it is above 1 and the reference takes none.
    """
    if guidance <= 1:
        return
    plain = reference.removeprefix("diffusers:")
    records = (entry.factory for entry in get_registry().entries["reference"].values())
    for record in records:
        if isinstance(record, PublishedReference) and not record.guided and plain in (record.name, record.source):
            raise RequestError(
                f"The reference '{reference}' was distilled without the empty prompt, and {setting} is {guidance:g}, "
                f"which guides by a second pass with it. Set {setting}=1; what it was distilled from takes guidance."
            )


def register_blueprints(register: Register, models: Iterable[PublishedPipeline]) -> None:
    """Register what `dipp plan` builds these names from; one of a name that is both reference and generator."""
    for name, model in {model.name: model for model in models}.items():
        register(name, model.blueprint, summary=f"{name} without weights")


def register_models(register: Register, models: Iterable[PublishedPipeline]) -> None:
    """Register references or generators."""
    for model in models:
        register(model.name, model, summary=model.summary, defaults=_defaults(model), origin=model.origin)


def _defaults(model: PublishedPipeline) -> dict[str, Any]:
    """Recommended settings: those that the record implies, and its own."""
    if not isinstance(model, PublishedGenerator):
        return {"reference": model.name, **model.defaults}
    read: dict[str, Any] = {"readout": model.readout, "input_scale": model.input_scale}
    if model.steps > 1:
        read["generator_steps"] = model.steps
    if model.stepping != USUAL:
        read |= {"step_noise": model.step_noise, "generator_times": model.times}
    reference = {"reference": model.reference} if model.reference else {}
    return {name: value for name, value in read.items() if value is not None} | reference | dict(model.defaults)
