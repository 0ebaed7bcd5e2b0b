"""The calls of stock diffusers that the authors of generators publish, in float32.

Nothing in them is ours but the seeds of schedulers that draw noise.

Each takes the folder of a pipeline in the published layout and the noise, and gives an image in [0, 1].
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dipp_toolkit.utils.reproducibility import own_generators

PEFT = "base_model.model."
PROMPT = "a small red fox on a blue sea"

REFERENCE_STEPS, REFERENCE_GUIDANCE = 4, 3.0
"""Of references; a few steps show what a scheduler does."""

Load = Callable[[], Any]
"""Makes the stock pipeline, its weights loaded as its authors' page shows."""


def quiet(pipeline: Any) -> Any:
    """The pipeline without progress bars."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def lcm(pipeline: Any, noise: Tensor, timestep: int, **arguments: Any) -> Tensor:
    """`LCMScheduler` at one timestep: DMD2, the Diff-Instruct family, Hyper-SD's UNet and PixArt's DMD."""
    from diffusers import LCMScheduler

    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    return images(pipeline, noise, guidance_scale=0.0, timesteps=[timestep], **arguments)


def pixart_dmd(pipeline: Any, noise: Tensor) -> Tensor:
    """PixArt's DMD: `DDPMScheduler` at 400, guidance 1, without the clipping that its class has as default."""
    from diffusers import DDPMScheduler

    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    exact = {"use_resolution_binning": False}
    return images(pipeline, noise, guidance_scale=1.0, timesteps=[400], **exact)


def own_scheduler(pipeline: Any, noise: Tensor, **arguments: Any) -> Tensor:
    """The scheduler that is published with the pipeline: SD-Turbo, SDXL-Turbo, FLUX.1-schnell, SD 3.5."""
    return images(pipeline, noise, guidance_scale=0.0, **arguments)


def sampled(pipeline: Any, noise: Tensor, **arguments: Any) -> Tensor:
    """A reference in a few guided steps of its own scheduler."""
    call = {"num_inference_steps": REFERENCE_STEPS, "guidance_scale": REFERENCE_GUIDANCE, **arguments}
    return images(pipeline, noise, **call)


def other_size(pipeline: Any, noise: Tensor) -> Tensor:
    """The same at the noise's size, which the pipeline is told."""
    height, width = (side * pipeline.vae_scale_factor for side in noise.shape[-2:])
    return sampled(pipeline, noise, height=height, width=width)


def pixart_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """PixArt-alpha's, with the caption as it is and at the network's own size."""
    return sampled(pipeline, noise, clean_caption=False, use_resolution_binning=False)


def hunyuan_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """HunyuanDiT's, at the network's own size; its scheduler draws noise, which here follows from the first noise."""
    return sampled(pipeline, noise, use_resolution_binning=False, generator=own_generators(noise))


def sana_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """SANA's, with the instruction that is its default, at the network's own size."""
    return sampled(pipeline, noise, **_own_size(pipeline, noise))


def sana_sprint(pipeline: Any, noise: Tensor) -> Tensor:
    """SANA-Sprint in one step: guidance 4.5, the default, and no angle in between, which is there by default."""
    return images(pipeline, noise, intermediate_timesteps=None, **_own_size(pipeline, noise))


def _own_size(pipeline: Any, noise: Tensor) -> dict[str, Any]:
    """The noise's size, which is not rounded to one that the pipeline was published with."""
    height, width = (side * pipeline.vae_scale_factor for side in noise.shape[-2:])
    return {"height": height, "width": width, "use_resolution_binning": False}


def flux_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """FLUX.1-dev's, whose guidance is an input of its network: 3.5, the pipeline's own value."""
    packed, pixels = _packed(pipeline, noise)
    return sampled(pipeline, packed, guidance_scale=3.5, **pixels)


def _packed(pipeline: Any, noise: Tensor) -> tuple[Tensor, dict[str, int]]:
    """Latents as Flux takes them, and the size that belongs to them."""
    batch, channels, height, width = noise.shape
    pixels = {"height": height * pipeline.vae_scale_factor, "width": width * pipeline.vae_scale_factor}
    return pipeline._pack_latents(noise, batch, channels, height, width), pixels


def schnell(pipeline: Any, noise: Tensor) -> Tensor:
    """FLUX.1-schnell: its own scheduler, and 256 tokens for T5 at most."""
    packed, pixels = _packed(pipeline, noise)
    return own_scheduler(pipeline, packed, max_sequence_length=256, **pixels)


def chroma_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """Chroma's, guided against the empty prompt, which is what it takes where none is given."""
    packed, pixels = _packed(pipeline, noise)
    return sampled(pipeline, packed, **pixels)


def chroma_flash(pipeline: Any, noise: Tensor) -> Tensor:
    """Chroma1-Flash: eight steps of its own scheduler without guidance."""
    packed, pixels = _packed(pipeline, noise)
    return images(pipeline, packed, num_inference_steps=8, guidance_scale=1.0, **pixels)


def klein(pipeline: Any, noise: Tensor) -> Tensor:
    """FLUX.2-klein: four steps of its own scheduler at the noise's size, a position being two of the autoencoder's."""
    return images(pipeline, noise, guidance_scale=1.0, num_inference_steps=4, **_flux_2_size(pipeline, noise))


def klein_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """A base model of FLUX.2-klein's, guided by two passes."""
    return sampled(pipeline, noise, **_flux_2_size(pipeline, noise))


def flux_2_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """FLUX.2-dev's, whose guidance is an input of its network: 4, the pipeline's own value."""
    return sampled(pipeline, noise, guidance_scale=4.0, **_flux_2_size(pipeline, noise))


def _flux_2_size(pipeline: Any, noise: Tensor) -> dict[str, int]:
    height, width = (2 * side * pipeline.vae_scale_factor for side in noise.shape[-2:])
    return {"height": height, "width": width}


def z_image(pipeline: Any, noise: Tensor, steps: int = 8) -> Tensor:
    """Z-Image-Turbo: its own scheduler, and guidance 0, which is none there; the default size is 1024 pixels."""
    height, width = (side * pipeline.vae_scale_factor for side in noise.shape[-2:])
    return own_scheduler(pipeline, noise, num_inference_steps=steps, height=height, width=width)


def z_image_turbo_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """Z-Image-Turbo as a reference, in as few steps as others."""
    return z_image(pipeline, noise, REFERENCE_STEPS)


def z_image_4(pipeline: Any, noise: Tensor) -> Tensor:
    """Z-Image with a LoRA of four steps."""
    return z_image(pipeline, noise, 4)


def z_image_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """Z-Image's, whose guidance_scale is one less than elsewhere."""
    height, width = (side * pipeline.vae_scale_factor for side in noise.shape[-2:])
    return sampled(pipeline, noise, guidance_scale=REFERENCE_GUIDANCE - 1, height=height, width=width)


def qwen_image_sampled(pipeline: Any, noise: Tensor) -> Tensor:
    """Qwen-Image's, which is guided by `true_cfg_scale` where it is told what against."""
    packed, pixels = _packed(pipeline, noise)
    guided = {"true_cfg_scale": REFERENCE_GUIDANCE, "negative_prompt": ""}
    return images(pipeline, packed, num_inference_steps=REFERENCE_STEPS, **guided, **pixels)


def qwen_image_lightning(pipeline: Any, noise: Tensor, steps: int = 4) -> Tensor:
    """Qwen-Image-Lightning's own scheduler, of the shift that it was distilled with."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, base_shift=math.log(3), max_shift=math.log(3), shift_terminal=None
    )
    packed, pixels = _packed(pipeline, noise)
    return images(pipeline, packed, true_cfg_scale=1.0, num_inference_steps=steps, **pixels)


def qwen_image_lightning_8(pipeline: Any, noise: Tensor) -> Tensor:
    """The one of eight steps."""
    return qwen_image_lightning(pipeline, noise, 8)


def latent_consistency(pipeline: Any, noise: Tensor) -> Tensor:
    """LCM's four steps, guidance 8.5 being the pipeline's own; the noise between them follows from the first one."""
    return images(pipeline, noise, num_inference_steps=4, generator=own_generators(noise))


def lcm_lora(pipeline: Any, noise: Tensor) -> Tensor:
    """An LCM-LoRA's four steps of `LCMScheduler`, without guidance."""
    from diffusers import LCMScheduler

    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    return images(pipeline, noise, num_inference_steps=4, guidance_scale=0.0, generator=own_generators(noise))


def lightning(pipeline: Any, noise: Tensor) -> Tensor:
    """SDXL-Lightning's one step: Euler with trailing spacing, whose network predicts the sample."""
    from diffusers import EulerDiscreteScheduler

    pipeline.scheduler = EulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", prediction_type="sample"
    )
    return images(pipeline, noise, guidance_scale=0.0)


def lightning_in(steps: int) -> Callable[[Any, Tensor], Tensor]:
    """SDXL-Lightning's several steps: Euler with trailing spacing, of a network that predicts noise."""

    def call(pipeline: Any, noise: Tensor) -> Tensor:
        from diffusers import EulerDiscreteScheduler

        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
        return images(pipeline, noise, num_inference_steps=steps, guidance_scale=0.0)

    return call


TCD_DIFFERS = (
    "the published call ends at the first training time, so that its image holds 3 % of noise, which is taken out "
    "of the comparison."
)


def tcd(pipeline: Any, noise: Tensor) -> Tensor:
    r"""Hyper-SD's unified LoRA: `TCDScheduler` with eta 1, without the noise that its one step leaves in the sample.

    It ends at the first training time and not at 0: $x = \sqrt{\bar\alpha_0} \hat x_0 + \sqrt{1 - \bar\alpha_0}
    \hat\epsilon$, 3 % of noise. What the network says is read off $\hat\epsilon$ and $\hat x_0$ both, so the same
    output gives $\hat x_0$.
    """
    from diffusers import TCDScheduler

    pipeline.scheduler = TCDScheduler.from_config(pipeline.scheduler.config)
    latents = pipeline(
        PROMPT, latents=noise, num_inference_steps=1, guidance_scale=0, eta=1.0, output_type="latent"
    ).images
    signal = pipeline.scheduler.alphas_cumprod
    first, last = signal[0], signal[int(pipeline.scheduler.timesteps[0])]
    # Of z = a x + s e and latents = a0 x + s0 e, the sample x.
    a, s, a0, s0 = last.sqrt(), (1 - last).sqrt(), first.sqrt(), (1 - first).sqrt()
    sample = (s * latents - s0 * noise) / (a0 * s - a * s0)
    return decoded(pipeline, sample)


def with_lora(pipeline: Any, path: Path, scale: float = 1.0) -> Any:
    """The pipeline with a LoRA fused into its network by diffusers' own loader."""
    state = load_file(path)
    if any(name.startswith(PEFT) for name in state):  # which diffusers reads once it is told where they belong
        settings = json.loads(path.with_name("adapter_config.json").read_text(encoding="utf-8"))
        scale *= settings["lora_alpha"] / settings["r"]
        component = "unet" if hasattr(pipeline, "unet") else "transformer"
        state = {f"{component}.{name.removeprefix(PEFT)}": tensor for name, tensor in state.items()}
    # VideoX-Fun's program adds its files by itself; diffusers does not know their second underscore.
    state = {name.replace("lora_unet__", "lora_unet_"): tensor for name, tensor in state.items()}
    pipeline.load_lora_weights(state)
    pipeline.fuse_lora(lora_scale=scale)
    return pipeline


def decoded(pipeline: Any, latents: Tensor) -> Tensor:
    """The autoencoder's image of latents, as the pipeline decodes them."""
    with torch.no_grad():
        image = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    return (image / 2 + 0.5).clamp(0, 1)


def images(pipeline: Any, noise: Tensor, **arguments: Any) -> Tensor:
    """The pipeline's own call, in one step where nothing else is said."""
    call = {"num_inference_steps": 1, "latents": noise, "output_type": "pt", **arguments}
    result: Tensor = quiet(pipeline)(prompt=PROMPT, **call).images
    return result


def pipeline_at(folder: Path, **options: Any) -> Any:
    """A stock pipeline of a folder."""
    from diffusers import DiffusionPipeline

    return quiet(DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, **options))
