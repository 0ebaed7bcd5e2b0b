"""The emoji world: small text-to-image, weights included, in which all of the toolkit runs on a CPU in minutes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Origin

if TYPE_CHECKING:
    from dipp_toolkit import Generator, PromptSet, Reference
    from dipp_toolkit.models.blueprints import PipelineBlueprint

WEIGHTS = Path(__file__).parent / "weights"
"""The world's trained weights, each in the Hugging Face layout."""

OURS = Origin("", licences.APACHE)
"""The weights come with this package; see NOTICE for the artwork that they were trained on."""

WORLD: dict[str, Any] = {
    "reference": "emoji-reference",
    "prompts": "emoji-train",
    "eval_prompts": "emoji-heldout",
    "judge": "emoji-judge",
    "reference_steps": 25,
    "weighting": "dmd",
    "batch_size": 32,
    "assistant_rounds": 1,
    "warmup": 10,
}
ALIGN = WORLD | {
    "rewards": {"emoji-preference": 1.0, "emoji-clip": 0.02},
    "reward_scale": 80.0,
    "guidance": 1.0,
    "reference_guidance": 1.5,
    "steps": 40,
    "learning_rate": 1e-4,
    "assistant_learning_rate": 4e-4,
    "warmup": 0,
    "cooldown": 20,
    "ema": 0.8,
    "eval_count": 96,
    "checkpoint_every": 20,
    "sample_every": 20,
    "monitor_every": 10,
    "diagnose_every": 10,
}
"""DI++ as docs/results/emoji-world.md found it best on training prompts; the reference at its best guidance."""
DISTIL = WORLD | {
    "guidance": 2.0,
    "reference_guidance": 2.0,
    "steps": 700,
    "learning_rate": 1e-4,
    "assistant_learning_rate": 2e-4,
    "ema": 0.99,
    "diagnose_every": 50,
}
UNET_READOUT: dict[str, Any] = {"readout": 625 / 999, "input_scale": "sigma"}
"""Where a one-step Stable Diffusion 1.5 is read out, and of what (Zhou et al. 2024, SiD-LSG)."""
UNET_WORLD: dict[str, Any] = {"reference": "emoji-unet-reference", "reference_guidance": 3.0}
UNET_DISTIL = (
    DISTIL
    | UNET_WORLD
    | UNET_READOUT
    | {"guidance": 3.0, "learning_rate": 2.5e-4, "assistant_learning_rate": 5e-4, "assistant_rounds": 2}
)
UNET_ALIGN = ALIGN | UNET_WORLD


def load_reference(folder: str, /, **options: Any) -> Reference:
    """A multi-step reference: a small `PixArtAlphaPipeline`, or, of `unet-reference`, a `StableDiffusionPipeline`."""
    from dipp_toolkit.models.loading import load_reference as load

    return load(str(WEIGHTS / folder), **options)


def load_generator(folder: str, /) -> Generator:
    """A one-step generator distilled from a reference."""
    from dipp_toolkit.models.loading import load_generator as load

    return load(str(WEIGHTS / folder))


def pipeline_blueprint(name: str) -> PipelineBlueprint:
    """A reference or a one-step generator without its weights."""
    from dipp_toolkit.models.blueprints import PipelineBlueprint

    return PipelineBlueprint(WEIGHTS / name, f"emoji-{name}")


def load_prompts(name: str, held_out: bool) -> PromptSet:
    """The canonical captions of the training or of the held-out pairs; the category is the background."""
    from dipp_toolkit.prompts.dataset import PromptList
    from dipp_toolkit.protocols import Prompt

    from .captions import BACKGROUNDS, caption, pairs

    backgrounds = tuple(BACKGROUNDS)
    return PromptList(
        name, [Prompt(caption(i, j), f"{i:03d}-{j}", backgrounds[j]) for i, j in pairs(held_out=held_out)]
    )


@hookimpl
def dipp_register_references(register: Register) -> None:
    register(
        "emoji-reference",
        partial(load_reference, "reference"),
        summary="4 M parameter PixArt-alpha pipeline for 64x64 emoji, multi-step",
        needs=("diffusers", "transformers"),
        defaults=DISTIL,
        origin=OURS,
    )
    register(
        "emoji-unet-reference",
        partial(load_reference, "unet-reference"),
        summary="2.8 M parameter Stable Diffusion pipeline for the same emoji: UNet, CLIP text encoder, multi-step",
        needs=("diffusers", "transformers"),
        defaults=UNET_DISTIL,
        origin=OURS,
    )


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register(
        "emoji-onestep",
        partial(load_generator, "onestep"),
        summary="one-step generator distilled from emoji-reference by Diff-Instruct",
        needs=("diffusers", "transformers"),
        defaults=ALIGN,
        origin=OURS,
    )
    register(
        "emoji-unet-onestep",
        partial(load_generator, "unet-onestep"),
        summary="one-step generator distilled from emoji-unet-reference by Diff-Instruct, read out at timestep 625",
        needs=("diffusers", "transformers"),
        defaults=UNET_ALIGN,
        origin=OURS,
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    for name in ("reference", "onestep", "unet-reference", "unet-onestep"):
        register(f"emoji-{name}", partial(pipeline_blueprint, name), summary=f"emoji-{name} without weights")
    for name in ("clip", "preference"):
        register(f"emoji-{name}", f"dipp_emoji.rewards:{name}_blueprint", summary=f"emoji-{name} without weights")


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    needs = ("transformers",)
    register(
        "emoji-clip",
        "dipp_emoji.rewards:EmojiClip",
        summary="small CLIP: does the image show the caption",
        needs=needs,
        origin=OURS,
        described="dipp_emoji.described:Clip",
    )
    register(
        "emoji-preference",
        "dipp_emoji.rewards:EmojiPreference",
        summary="Bradley-Terry preference over image and caption, the stand-in for HPS and ImageReward",
        needs=needs,
        origin=OURS,
        described="dipp_emoji.described:Preference",
    )
    register(
        "emoji-judge",
        "dipp_emoji.judge:EmojiJudge",
        summary="independent preference that only ever judges",
        needs=needs,
        origin=OURS,
        described="dipp_emoji.described:Judge",
    )


@hookimpl
def dipp_register_prompts(register: Register) -> None:
    register("emoji-train", partial(load_prompts, "emoji-train", False), summary="704 captions of the training pairs")
    register(
        "emoji-heldout", partial(load_prompts, "emoji-heldout", True), summary="352 captions of pairs never trained on"
    )


@hookimpl
def dipp_register_metrics(register: Register) -> None:
    needs = ("transformers",)
    register(
        "emoji-frechet",
        "dipp_emoji.metrics:EmojiFrechet",
        summary="Frechet distance of the judge's features to real compositions of the held-out pairs",
        needs=needs,
        origin=OURS,
    )
    register(
        "emoji-naming",
        "dipp_emoji.metrics:EmojiNaming",
        summary="share of images whose emoji and background the judge names as the prompt does",
        needs=needs,
        origin=OURS,
    )
