"""DMD2's one-step Stable Diffusion XL: the base pipeline with the network that DMD2 published beside it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.fetching import NotHere, hub_file
from dipp_toolkit.folders import how_to_fetch, resolve_folder
from dipp_toolkit.prompt_cache import default_cache
from dipp_toolkit.rewards.weights import read_state, tensors_of

from .models import DMD2_READOUT, SDXL

HUB, FILE = "tianweiy/DMD2", "dmd2_sdxl_1step_unet_fp16.bin"


def load_sdxl_dmd2(readout: float = DMD2_READOUT) -> Any:
    """The generator. Its published weights are a pickled state dict, read with `weights_only=True` and kept as
    safetensors from then on.

    Raises:
        RequestError: the weights are not here and cannot be fetched.
    """
    from dipp_toolkit.diffusers_generator import DiffusersGenerator

    generator = DiffusersGenerator.load(SDXL, readout=readout)
    generator.weights = _converted(resolve_folder(SDXL) / "unet" / "config.json")
    return generator


def _converted(config: Path) -> Path:
    target = default_cache().parent / "converted" / "sdxl-dmd2"
    if (target / "config.json").is_file():
        return target
    from safetensors.torch import save_file

    try:
        path = hub_file(HUB, FILE)
    except NotHere:
        raise
    except Exception as error:  # the hub's client raises its own and its HTTP library's errors
        raise RequestError(f"Cannot fetch {FILE} of {HUB}: {first_line(error)}. {how_to_fetch(HUB)}") from error
    state = tensors_of(read_state(path), path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=target.parent))
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, beside / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(config, beside / "config.json")
    try:
        beside.replace(target)
    except OSError:  # another process was faster
        shutil.rmtree(beside, ignore_errors=True)
    return target
