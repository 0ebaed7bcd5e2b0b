"""HPSv2 and HPSv2.1 (Wu et al. 2023, arXiv 2306.09341): OpenCLIP ViT-H/14, fine-tuned on what people preferred."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Origin


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "hps",
        "dipp_hps.reward:HPS",
        summary="HPSv2.1, or v2.0 by version=v2.0: what people prefer, 986 M parameters",
        needs=("open_clip", "torchvision"),
        origin=Origin("xswu/HPSv2", licences.APACHE),
    )


@hookimpl
def dipp_register_environments(register: Register) -> None:
    register(
        "hpsv2",
        "dipp_hps.original:environment",
        summary="the original package hpsv2, for --reward hps@isolated",
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register("hps", "dipp_hps.reward:blueprint", summary="HPSv2: OpenCLIP ViT-H/14, 986 M parameters")
