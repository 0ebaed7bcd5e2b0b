"""CycleReward (Bahng et al. 2025, arXiv 2506.02095): ImageReward's network, taught by cycle consistency."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Licence, Origin


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "cyclereward",
        "dipp_cyclereward.reward:CycleReward",
        summary="CycleReward: whether the prompt comes back from the image, 446 M parameters",
        needs=("torchvision",),
        origin=Origin(
            "NagaSaiAbhinay/CycleReward-Combo",
            Licence("mit", licences.MIT.link, note="as the authors' repository, hjbahng/cyclereward, says"),
        ),
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register(
        "cyclereward",
        "dipp_cyclereward.network:blueprint",
        summary="CycleReward: BLIP ViT-L/16 and a cross-attending BERT",
    )
