"""CLIP (Radford et al. 2021, arXiv 2103.00020): agreement of image and prompt, by any model of open_clip."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Licence, Origin


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "clip",
        "dipp_clip.reward:Clip",
        summary="agreement of image and prompt, by any open_clip model",
        needs=("open_clip", "torchvision"),
        origin=Origin("", Licence("mit", note="of OpenAI's and LAION's weights; others have their own")),
    )
    register(
        "clip-g",
        "dipp_clip.reward:LargeClip",
        summary="the CLIP score of DMD2's and SiD's tables, by OpenCLIP's ViT-g/14",
        needs=("open_clip", "torchvision"),
        origin=Origin("laion/CLIP-ViT-g-14-laion2B-s12B-b42K", licences.MIT),
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register("clip", "dipp_clip.reward:blueprint", summary="OpenAI's CLIP ViT-L/14, the default of clip")
    register("clip-g", "dipp_clip.reward:large_blueprint", summary="OpenCLIP ViT-g/14")
