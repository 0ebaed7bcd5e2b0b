"""HPSv2 (Wu et al. 2023, arXiv 2306.09341). So far its architecture alone, for planning; the reward is not in yet."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register("hps", "dipp_hps.blueprint:blueprint", summary="HPSv2: OpenCLIP ViT-H/14, 986 M parameters")
