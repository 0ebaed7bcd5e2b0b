"""PickScore (Kirstain et al. 2023, arXiv 2305.01569): CLIP ViT-H/14, fine-tuned on what users picked."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Origin


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "pickscore",
        "dipp_pickscore.reward:PickScore",
        summary="PickScore v1: what users of Pick-a-Pic picked, 986 M parameters",
        needs=("torchvision",),
        origin=Origin("yuvalkirstain/PickScore_v1", licences.MIT),
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register("pickscore", "dipp_pickscore.reward:blueprint", summary="PickScore: CLIP ViT-H/14, 986 M parameters")
