"""Latent consistency models: Stable Diffusion's UNet with guidance as an input, and a tiny twin of their pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.comfyui.facts import ComfyModel
from dipp_toolkit.models.files.folders import component_config
from dipp_toolkit.models.stock_call import StockCall
from dipp_toolkit.models.tiny_pipelines import check_prediction, drawn_from, save_quietly, write_with

from .family import BETAS, GUIDANCE, StableDiffusionFamily, first_version_unet, write_stable_diffusion_twin

CLASS = "LatentConsistencyModelPipeline"


@dataclass(frozen=True)
class ConsistencyCall(StockCall):
    """The pipeline tells its scheduler of how many steps its times are a choice: an `LCMScheduler`, and no other."""

    def time_arguments(self, steps: int) -> dict[str, Any]:
        return {"original_inference_steps": None}


@dataclass(frozen=True)
class LatentConsistencyFamily(StableDiffusionFamily):
    r"""A latent consistency model (Luo et al. 2023, arXiv 2310.04378): Stable Diffusion distilled with its guidance.

    The UNet predicts the noise of the end of a path, told how far the teacher was guided: an embedding of $w - 1$ for
    the pipeline's guidance $w$ (`time_cond_proj_dim`). It is called once a step, with fresh noise in between.

    Attributes:
        embedded_guidance: $w$, by default that of the stock pipeline's call.
        stock_call: how the pipeline drives its scheduler.
        reference_class: Stable Diffusion's, as whose distillation it predicts no score.
    """

    embedded_guidance: float = 8.5
    stock_call: ClassVar[StockCall] = ConsistencyCall(second_pass=False, consistency=True)  # type: ignore[misc]
    reference_class: ClassVar[str] = "StableDiffusionPipeline"

    def configured(self, folder: Path) -> LatentConsistencyFamily:
        """This family.

        Raises:
            RequestError: the UNet takes no guidance scale, and the pipeline always gives it one.
        """
        network = component_config(folder, self.network_name)
        if network and network.get("time_cond_proj_dim") is None:
            raise RequestError(
                f"The UNet in {folder} takes no guidance scale (time_cond_proj_dim), and {CLASS} gives it one. If it "
                "is Stable Diffusion's, say StableDiffusionPipeline in model_index.json."
            )
        return self

    def takes_guidance(self, network_config: Mapping[str, Any]) -> bool:
        """Never that of a sampler: it is told the one it has inside."""
        return False

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        if GUIDANCE not in condition.tensors:
            condition = self.guided(network, condition, self.embedded_guidance)
        return super().forward(network, x_t, network_time, condition)

    def comfyui(self, folder: Path) -> ComfyModel:
        """None: ComfyUI's UNets take no guidance scale."""
        return replace(super().comfyui(folder), unknown="its UNets take no guidance scale as an input")

    def write_twin(self, folder: Path, **options: Any) -> None:
        """A tiny random pipeline with the parts of `StableDiffusionPipeline`'s of the same seed."""
        write_with(write_latent_consistency_twin, folder, CLASS, options)


def write_latent_consistency_twin(
    folder: Path, *, seed: int = 0, prediction_type: str | None = None, guidance_width: int = 16
) -> Path:
    """Save a random `LatentConsistencyModelPipeline` with latents `(4, 8, 8)` and images `(3, 16, 16)`.

    Args:
        folder: created where missing.
        seed: of the weights.
        prediction_type: what its scheduler says that the network predicts, `"epsilon"` by default.
        guidance_width: of the embedding of a guidance scale.

    Returns:
        `folder`.

    Raises:
        RequestError: the scheduler has no such `prediction_type`.
    """
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionPipeline

    check_prediction(prediction_type, ("epsilon", "v_prediction"), CLASS)
    with tempfile.TemporaryDirectory() as scratch:
        plain = write_stable_diffusion_twin(Path(scratch) / "plain", seed=seed)
        parts = StableDiffusionPipeline.from_pretrained(plain, safety_checker=None, feature_extractor=None)
        with drawn_from(seed):
            unet = first_version_unet(guidance_width)
        scheduler = LCMScheduler(**{**BETAS, "steps_offset": 0}, prediction_type=prediction_type or "epsilon")
        pipeline = LatentConsistencyModelPipeline(
            parts.vae, parts.text_encoder, parts.tokenizer, unet, scheduler, None, None, requires_safety_checker=False
        )
        return save_quietly(pipeline, folder)
