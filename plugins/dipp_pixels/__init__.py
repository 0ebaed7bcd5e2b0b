"""Small exact rewards on pixels: no weights, any image size."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "colourfulness",
        "dipp_pixels.rewards:Colourfulness",
        summary="Hasler and Suesstrunk's colourfulness of the pixels",
    )
    register("sharpness", "dipp_pixels.rewards:Sharpness", summary="deviation of the brightness's Laplacian")
