"""GenEval (Ghosh et al. 2023, arXiv 2310.11513): are the objects of a prompt there, with their counts and colours?"""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils.licences import Licence, Origin

DETECTOR = "facebook/mask2former-swin-small-coco-instance"


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "geneval",
        "dipp_geneval.reward:GenEval",
        summary="GenEval's rules by an open detector, 0 or 1; not the published number's detector; a black box",
        needs=("open_clip", "torchvision"),
        origin=Origin(DETECTOR, Licence("other", note="the detector's card says no more; CLIP's weights are MIT")),
    )


@hookimpl
def dipp_register_environments(register: Register) -> None:
    register(
        "geneval",
        "dipp_geneval.original:environment",
        summary="GenEval's own detector, Mask2Former of mmdet, for --reward geneval@isolated",
    )
