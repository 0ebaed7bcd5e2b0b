"""Pipelines in the Hugging Face layout: one code path makes a local folder or hub id a reference or a generator.

What differs between pipeline classes (which component is the network, how prompts are encoded, how the network is
called) is a `PipelineFamily`, registered by a plugin under the class's name. Everything else is here, once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .condition import Condition
from .denoiser import Denoiser
from .errors import RequestError
from .naming import unknown_name
from .predictions import prediction_from_config
from .registry import get_registry
from .roles import Images
from .schedules import VariancePreserving, schedule_from_config

ASSISTANT = "assistant"
"""Subfolder of a generator's folder that holds the assistant it was trained with; diffusers ignores it."""


@runtime_checkable
class PipelineFamily(Protocol):
    """What is particular to a diffusers pipeline class.

    Attributes:
        network_name: the pipeline component that denoises, `"transformer"` or `"unet"`.
    """

    @property
    def network_name(self) -> str:
        """The component's name in `model_index.json`."""

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        """Encode prompts with the pipeline's own tokenizers and encoders, padded to one fixed length."""

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        """The network's raw output, like `x_t` (learned-variance channels dropped)."""


def resolve_folder(name: str) -> Path:
    """The local folder of a pipeline, from a path or a hub id (downloaded to the hub's cache).

    Raises:
        RequestError: no pipeline is there; the message says where was looked.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        for folder in (path, path / "final"):
            if (folder / "model_index.json").is_file():
                return folder
        raise RequestError(
            f"{path} is no diffusers pipeline: it has neither model_index.json nor final/model_index.json."
        )
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise RequestError(f"There is no pipeline folder {path} (looked in {path.parent.resolve()}).")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.bin", "*.ckpt", "*.pt", "*.msgpack", "*.onnx*"]))
    except Exception as error:  # the hub's client raises its own and its HTTP library's errors
        raise RequestError(
            f"Cannot fetch the pipeline '{name}' from the hub, and there is no such folder: {error}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a pipeline folder.

    Raises:
        RequestError: the file is missing or is no JSON.
    """
    try:
        return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RequestError(f"Cannot read {path}: {error}") from error


def family_of(folder: Path) -> PipelineFamily:
    """The family of a pipeline folder, by the class its `model_index.json` names.

    Raises:
        RequestError: no installed plugin knows the class.
    """
    name = str(read_json(folder / "model_index.json").get("_class_name"))
    known = get_registry().entries["pipeline"]
    if name not in known:
        raise RequestError(
            f"No plugin can load the pipeline class of {folder}. {unknown_name('pipeline', name, known)}"
        )
    return cast(PipelineFamily, known[name].build())


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars and no advice from the loading libraries: a run says what matters itself."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    before = [library.get_verbosity() for library in (diffusers_logging, transformers_logging)]
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip((diffusers_logging, transformers_logging), before, strict=True):
            library.set_verbosity(level)
            library.enable_progress_bar()


def load_component(folder: Path, name: str, subfolder: str | None = None) -> Any:
    """One component of a pipeline folder, in float32, by the class `model_index.json` gives it.

    Args:
        folder: the pipeline's folder.
        name: the component's name in `model_index.json`.
        subfolder: where its files are, `name` unless said.
    """
    import importlib

    library, class_name = read_json(folder / "model_index.json")[name]
    component_class = getattr(importlib.import_module(library), class_name)
    with quiet_loading():
        return component_class.from_pretrained(folder / (subfolder or name)).float()


@dataclass
class DiffusersReference:
    """A diffusers pipeline as the reference.

    Attributes:
        folder: where it was loaded from.
        family: what is particular to its class.
        pipeline: the loaded pipeline, every network frozen.
    """

    folder: Path
    family: PipelineFamily
    pipeline: Any
    denoiser: Denoiser = field(init=False)
    latent_shape: tuple[int, ...] = field(init=False)
    _null: Condition | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for component in self.pipeline.components.values():
            if isinstance(component, nn.Module):
                component.float().eval().requires_grad_(False)
        network = getattr(self.pipeline, self.family.network_name)
        config = self.pipeline.scheduler.config
        self.denoiser = Denoiser(
            network, schedule_from_config(config), prediction_from_config(config), self.family.forward
        )
        size = network.config.sample_size
        self.latent_shape = (network.config.in_channels, size, size)

    @classmethod
    def load(cls, name: str) -> DiffusersReference:
        """Load a local folder or hub id.

        Raises:
            RequestError: it is missing, or no plugin knows its class.
        """
        from diffusers import DiffusionPipeline

        folder = resolve_folder(name)
        family = family_of(folder)
        with quiet_loading():
            return cls(folder, family, DiffusionPipeline.from_pretrained(folder))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        return self.family.encode(self.pipeline, list(prompts))

    def null(self, batch: int) -> Condition:
        if self._null is None:
            self._null = self.encode([""])
        return self._null[[0] * batch]

    def decode(self, latents: Float[Tensor, "batch channels latent_height latent_width"]) -> Images:
        vae = self.pipeline.vae
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        pixels = vae.decode(latents.float() / vae.config.scaling_factor + shift, return_dict=False)[0]
        # Straight-through past the range, so that a saturated pixel still hears that it should come back.
        images = pixels.float() * 0.5 + 0.5
        return images.clamp(0, 1).detach() + (images - images.detach())

    @torch.no_grad()
    def sample(
        self, condition: Condition, noise: Float[Tensor, "batch channels height width"], steps: int, guidance: float
    ) -> Float[Tensor, "batch channels height width"]:
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(steps, device=noise.device)
        latents = noise * scheduler.init_noise_sigma
        both = Condition.cat([condition, self.null(len(condition)).to(noise.device)])
        for timestep in scheduler.timesteps:
            x_t = scheduler.scale_model_input(latents, timestep)
            if guidance == 1:
                output = self.family.forward(self.denoiser.network, x_t, timestep.expand(len(x_t)), condition)
            else:
                doubled = torch.cat([x_t, x_t])
                output = self.family.forward(self.denoiser.network, doubled, timestep.expand(len(doubled)), both)
                given, empty = output.chunk(2)
                output = empty + guidance * (given - empty)
            latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
        return latents

    def to(self, device: torch.device | str) -> DiffusersReference:
        self.pipeline.to(device)
        self._null = self._null.to(device) if self._null is not None else None
        return self


@dataclass
class DiffusersGenerator:
    r"""A diffusers network read out once from pure noise: $g_\theta(z, c) = \hat x_0(z, t_{readout}, c)$.

    Attributes:
        folder: the pipeline folder whose other components an export copies.
        denoiser: the trainable network, its schedule and prediction type.
        family: what is particular to the pipeline's class.
        readout: the time in [0, 1] at which the network is read.
        assistant_folder: pipeline folder holding the assistant this generator was trained with, where there is one.
    """

    folder: Path
    denoiser: Denoiser
    family: PipelineFamily
    readout: float = 1.0
    assistant_folder: Path | None = None

    @property
    def network(self) -> nn.Module:
        return self.denoiser.network

    @property
    def latent_shape(self) -> tuple[int, ...]:
        config = cast(Any, self.network).config
        return (config.in_channels, config.sample_size, config.sample_size)

    @classmethod
    def load(cls, name: str) -> DiffusersGenerator:
        """Load a generator from a pipeline folder, a run folder or a hub id; its scheduler says when it is read out.

        Raises:
            RequestError: it is missing, or no plugin knows its class.
        """
        from diffusers import DDIMScheduler

        folder = resolve_folder(name)
        family = family_of(folder)
        config = read_json(folder / "scheduler" / "scheduler_config.json")
        schedule = schedule_from_config(config)
        readout = 1.0
        if isinstance(schedule, VariancePreserving):
            scheduler = DDIMScheduler.from_config(config)
            scheduler.set_timesteps(1)
            readout = float(scheduler.timesteps[0]) / (len(schedule.alphas_cumprod) - 1)
        network = load_component(folder, family.network_name)
        denoiser = Denoiser(network, schedule, prediction_from_config(config), family.forward).trainable_copy()
        assistant = folder if (folder / ASSISTANT).is_dir() else None
        return cls(folder, denoiser, family, readout, assistant)

    @classmethod
    def from_reference(cls, reference: DiffusersReference, readout: float = 1.0) -> DiffusersGenerator:
        """A generator that starts as the reference's own network, read out once at `readout`."""
        return cls(reference.folder, reference.denoiser.trainable_copy(), reference.family, readout)

    def generate(
        self, noise: Float[Tensor, "batch channels height width"], condition: Condition
    ) -> Float[Tensor, "batch channels height width"]:
        t = torch.full((len(noise),), self.readout, device=noise.device, dtype=noise.dtype)
        return self.denoiser.predict_x0(noise, t, condition)

    def load_assistant(self) -> nn.Module | None:
        """The network of the assistant that was saved with this generator, if any."""
        if self.assistant_folder is None:
            return None
        return cast(nn.Module, load_component(self.assistant_folder, self.family.network_name, ASSISTANT))

    def save_pretrained(self, folder: Path, assistant: nn.Module | None = None) -> None:
        """Write a pipeline folder whose stock pipeline makes this generator's image in one step.

        The other components are copied from the folder the generator came from; the scheduler becomes DDIM with a
        single trailing step, whose result is $\\hat x_0$ itself.

        Args:
            folder: where to; created, existing files are replaced.
            assistant: the assistant's network, kept beside so that training can go on from here.
        """
        index = read_json(self.folder / "model_index.json")
        for name, value in index.items():
            if isinstance(value, list) and value[0] and name not in (self.family.network_name, "scheduler"):
                shutil.copytree(self.folder / name, folder / name, dirs_exist_ok=True)
        cast(Any, self.network).save_pretrained(folder / self.family.network_name)
        if assistant is not None:
            cast(Any, assistant).save_pretrained(folder / ASSISTANT)
        config = read_json(self.folder / "scheduler" / "scheduler_config.json")
        one_step_scheduler(config, self.readout).save_pretrained(folder / "scheduler")
        index["scheduler"] = ["diffusers", "DDIMScheduler"]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def one_step_scheduler(config: dict[str, Any], readout: float) -> Any:
    """A DDIM scheduler whose single step reads $\\hat x_0$ off the network at the time `readout`.

    Raises:
        RequestError: the schedule is flow matching, or the read-out is not the last training time; a stock scheduler
            cannot express either.
    """
    from diffusers import DDIMScheduler

    if not isinstance(schedule_from_config(config), VariancePreserving):
        raise RequestError("Exporting a one-step generator is only possible for variance preserving schedules.")
    if readout != 1.0:
        raise RequestError(f"A stock one-step scheduler reads out at time 1; this generator reads out at {readout}.")
    kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    return DDIMScheduler(
        **{key: config[key] for key in kept if key in config},
        prediction_type=config.get("prediction_type", "epsilon"),
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        rescale_betas_zero_snr=bool(config.get("rescale_betas_zero_snr", False)),
    )
