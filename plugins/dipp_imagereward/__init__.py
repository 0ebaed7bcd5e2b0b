"""ImageReward (Xu et al. 2023, arXiv 2304.05977): BLIP's ViT-L/16 and a BERT that attends to the image."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Origin


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "imagereward",
        "dipp_imagereward.reward:ImageReward",
        summary="ImageReward v1.0: what people prefer, 446 M parameters",
        needs=("torchvision",),
        origin=Origin("THUDM/ImageReward", licences.APACHE),
    )


@hookimpl
def dipp_register_environments(register: Register) -> None:
    register(
        "image-reward",
        "dipp_imagereward.original:environment",
        summary="the original package image-reward, for --reward imagereward@isolated",
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register(
        "imagereward",
        "dipp_imagereward.network:blueprint",
        summary="ImageReward: BLIP ViT-L/16 and a cross-attending BERT",
    )
