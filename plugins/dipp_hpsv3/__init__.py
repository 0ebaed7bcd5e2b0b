"""HPSv3 (Ma et al. 2025, arXiv 2508.03789): Qwen2-VL 7B, by its own package in an environment of its own."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.utils import licences
from dipp_toolkit.utils.licences import Origin


@hookimpl
def dipp_register_environments(register: Register) -> None:
    register(
        "hpsv3",
        "dipp_hpsv3.original:environment",
        summary="the original package hpsv3, for --reward hpsv3@isolated",
        origin=Origin("MizzenAI/HPSv3", licences.MIT),
    )
