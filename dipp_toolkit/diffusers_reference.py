"""A diffusers pipeline as the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .condition import Condition
from .denoiser import Denoiser
from .folders import PipelineFamily, family_of, quiet_loading, resolve_folder
from .predictions import prediction_from_config
from .roles import Images
from .schedules import schedule_from_config


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
