"""VQAScore (Lin et al. 2024, arXiv 2404.01291): how surely CLIP-FlanT5 says that an image shows its prompt."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Licence, Origin


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "vqascore",
        "dipp_vqascore.reward:VQAScore",
        summary="VQAScore by CLIP-FlanT5-XL: whether the image shows the prompt, 3.1 B parameters",
        needs=("torchvision",),
        origin=Origin(
            "zhiqiulin/clip-flant5-xl",
            Licence("apache-2.0", licences.APACHE.link, note="as the authors' code says"),
        ),
    )


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register("vqascore", "dipp_vqascore.network:blueprint", summary="VQAScore: CLIP ViT-L/14 and Flan-T5 XL")
