"""Metrics of whole sets of images, of single images' colour, and of what making images costs."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_metrics(register: Register) -> None:
    register(
        "fid", "dipp_metrics.against_folder:Fid", summary="Frechet distance to a folder of real images (images=FOLDER)"
    )
    register(
        "cmmd", "dipp_metrics.against_folder:Cmmd", summary="discrepancy of CLIP embeddings to a folder of real images"
    )
    register(
        "precision-recall",
        "dipp_metrics.against_folder:PrecisionRecall",
        summary="precision, recall, density and coverage against a folder of real images",
    )
    register("vendi", "dipp_metrics.per_prompt:Vendi", summary="how many different images a prompt has, in effect")
    register("diversity", "dipp_metrics.per_prompt:Diversity", summary="how far a prompt's images lie from each other")
    register("saturation", "dipp_metrics.per_prompt:Saturation", summary="mean saturation of the colours")
    register("contrast", "dipp_metrics.per_prompt:Contrast", summary="deviation of the luma over an image")
    register("clipped", "dipp_metrics.per_prompt:Clipped", summary="share of pixels at an end of the range")
    register("latency", "dipp_metrics.costs:Latency", summary="seconds an image, one at a time and in a batch")
    register("memory", "dipp_metrics.costs:Memory", summary="peak memory while a batch is made")
    register("parameters", "dipp_metrics.costs:Parameters", summary="parameters of the networks, in millions")
