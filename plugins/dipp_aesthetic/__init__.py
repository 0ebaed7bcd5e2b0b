"""LAION's aesthetic predictor v2: how beautiful an image is, whatever the prompt."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Origin


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "aesthetic",
        "dipp_aesthetic.reward:Aesthetic",
        summary="LAION's aesthetic predictor v2, 1 to 10; prompts do not matter",
        needs=("open_clip", "torchvision"),
        origin=Origin("trl-lib/ddpo-aesthetic-predictor", licences.APACHE),
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register("aesthetic", "dipp_aesthetic.reward:blueprint", summary="CLIP ViT-L/14 and a head of five layers")
