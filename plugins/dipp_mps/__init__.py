"""MPS (Zhang et al. 2024, arXiv 2405.14705): CLIP ViT-H/14 whose image attends to the words that a condition picks."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Licence, Origin


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "mps",
        "dipp_mps.reward:MPS",
        summary="MPS, trained on overall preference: what people prefer, 1.1 B parameters",
        needs=("torchvision",),
        origin=Origin(
            "RE-N-Y/mpsv1",
            Licence("mit", licences.MIT.link, note="as the authors' repository, Kwai-Kolors/MPS, says"),
        ),
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register("mps", "dipp_mps.network:blueprint", summary="MPS: CLIP ViT-H/14 and four cross-attending layers")
