"""ImageReward (Xu et al. 2023, arXiv 2304.05977). So far its architecture, for planning; the reward is not in yet."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register(
        "imagereward",
        "dipp_imagereward.blueprint:blueprint",
        summary="ImageReward: BLIP ViT-L/16 and a cross-attending BERT",
    )
