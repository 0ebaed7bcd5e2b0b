"""`dipp generate` of n images: those of the built-in emoji generator, each scaled to 512 pixels; the largest memory.

A published generator's own pixels would cost hours on a CPU, and it is the images that may be held.
"""

from __future__ import annotations

import resource
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from unittest.mock import patch

SIZES = (64, 128, 256)
SIDE = 512


def measure(n: int) -> dict[str, float]:
    """Seconds of the processor's time and MiB of this process."""
    import torch

    from dipp_cli.app import main
    from dipp_toolkit.models.reference import DiffusersReference

    decode = DiffusersReference.decode

    def scaled(self: DiffusersReference, latents: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(decode(self, latents), size=SIDE)

    words = ["generate", "--prompts", "emoji-train", "--count", str(n), "--device", "cpu", "--out"]
    started = time.process_time()
    scaling = patch.object(DiffusersReference, "decode", scaled)
    with tempfile.TemporaryDirectory() as folder, scaling, redirect_stdout(StringIO()):
        code = main([*words, folder])
    if code:
        raise RuntimeError(f"dipp generate ended with {code}.")
    return {
        "seconds": time.process_time() - started,
        "MiB at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
