"""What ComfyUI makes of a pipeline's class: how its files are loaded, what noise levels it has, where it differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Betas = Literal["scaled_linear", "linear"]


@dataclass(frozen=True)
class ComfyModel:
    """How ComfyUI loads and runs models of a family.

    Attributes:
        betas: of the 1000 noise levels that its model class has, by diffusers' name, from `beta_start` to `beta_end`;
            None for flow matching.
        beta_start: the first beta.
        beta_end: the last beta.
        prediction: what its model class takes the network to predict, in diffusers' word.
        pixels: of a latent's side, for the node that makes an empty one.
        sixteen_channels: whether that node is `EmptySD3LatentImage`.
        clip_type: the type that `CLIPLoader` is told, where text encoder and autoencoder are files of their own; None
            where a checkpoint holds everything.
        t5_length: tokens that T5 reads at least, for `T5TokenizerOptions`; None where ComfyUI's own number is right.
        sized: whether prompts are encoded with an image's size, by `CLIPTextEncodePixArtAlpha`.
        guidance: for `FluxGuidance`; None for networks that take none.
        latent_scale: what ComfyUI multiplies latents of this network with, after the shift is taken off, as
            `scaling_factor` and `shift_factor` of an autoencoder do.
        latent_shift: the shift.
        kohya: whether LoRA keys are kohya's, which its UNets know; transformers know diffusers' names.
        unknown: why ComfyUI does not recognise a network of these sizes; empty where it does.
        differs: what is not as in diffusers, a sentence each.
    """

    betas: Betas | None
    beta_start: float = 0.0
    beta_end: float = 0.0
    prediction: str = "epsilon"
    pixels: int = 8
    sixteen_channels: bool = False
    clip_type: str | None = None
    t5_length: int | None = None
    sized: bool = False
    guidance: float | None = None
    latent_scale: float = 1.0
    latent_shift: float = 0.0
    kohya: bool = False
    unknown: str = ""
    differs: tuple[str, ...] = ()

    def latent_factor(self, vae: Mapping[str, Any]) -> float | None:
        """What latents are multiplied with before they are decoded; None where ComfyUI scales as the autoencoder says.

        Args:
            vae: the autoencoder's configuration.
        """
        factor = self.latent_scale / float(vae.get("scaling_factor", self.latent_scale))
        return None if abs(factor - 1) < SAME_SCALE else factor


SAME_SCALE = 1e-4
"""Relative difference of two scaling factors that are one and the same, written with more digits or fewer."""
