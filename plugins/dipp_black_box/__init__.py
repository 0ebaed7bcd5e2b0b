"""Rewards that only return numbers: examples of what trains without a gradient of its own."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register("jpeg", "dipp_black_box.jpeg:JpegSize", summary="compressibility: minus the size as JPEG; a black box")
    register(
        "ocr",
        "dipp_black_box.ocr:TextShown",
        summary="whether the image shows the text the prompt quotes; a black box",
        needs=("rapidocr", "onnxruntime"),
    )
