"""A diffusers network as a one-step generator, and its export as a stock pipeline."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .condition import Condition
from .denoiser import Denoiser
from .diffusers_reference import DiffusersReference
from .errors import RequestError
from .folders import PipelineFamily, family_of, load_component, read_json, resolve_folder
from .predictions import prediction_from_config
from .schedules import VariancePreserving, schedule_from_config

ASSISTANT = "assistant"
"""Subfolder of a generator's folder that holds the assistant it was trained with; diffusers ignores it."""

LEAST_ALPHA = 1e-3
"""Smallest alpha a noise prediction may be divided by; Stable Diffusion's schedule ends at 0.07, DDPM's at 0.006."""


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

    def check_exportable(self) -> None:
        """Raise before a training what `save_pretrained` would raise after it.

        Raises:
            RequestError: no stock scheduler can express this generator; see `one_step_scheduler`.
        """
        one_step_scheduler(read_json(self.folder / "scheduler" / "scheduler_config.json"), self.readout)

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
        RequestError: the schedule is flow matching, or the read-out is not the last training time, which a stock
            scheduler cannot express; or noise is predicted where hardly any signal is left to divide by.
    """
    from diffusers import DDIMScheduler

    schedule = schedule_from_config(config)
    if not isinstance(schedule, VariancePreserving):
        raise RequestError("Exporting a one-step generator is only possible for variance preserving schedules.")
    if readout != 1.0:
        raise RequestError(
            f"A stock one-step scheduler reads out at time 1; this generator reads out at {readout:.3g}. "
            "Set readout to 1, or name a folder whose scheduler has the timestep spacing 'trailing'."
        )
    alpha = schedule.alpha(torch.ones(1)).item()
    if config.get("prediction_type", "epsilon") == "epsilon" and alpha < LEAST_ALPHA:
        raise RequestError(
            f"A network that predicts noise cannot be read out at time 1 of this schedule: the sample is divided by "
            f"alpha = {alpha:.1g}. Use a reference that predicts v or the sample, or a schedule with alpha of at least "
            f"{LEAST_ALPHA}."
        )
    kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    return DDIMScheduler(
        **{key: config[key] for key in kept if key in config},
        prediction_type=config.get("prediction_type", "epsilon"),
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        rescale_betas_zero_snr=bool(config.get("rescale_betas_zero_snr", False)),
    )
