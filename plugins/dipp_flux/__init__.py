"""Flux pipelines."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register(
        "FluxPipeline",
        "dipp_flux.family:FluxFamily",
        summary="Flux: a flow-matching MMDiT over packed latents",
    )
