"""Files of tensors as somebody published them, read without running anything."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError, first_line

PICKLED = (".pt", ".pth", ".bin", ".ckpt")


def read_state(path: Path) -> dict[str, Any]:
    """What a file of weights holds: safetensors as such, a `.pt` with `weights_only=True` and nothing else.

    Raises:
        RequestError: the file is damaged, not a file of weights, or would run code when it is read.
    """
    return _read(path, mmap=False)


def check_weights(path: Path) -> None:
    """Refuse a file that would run code when it is read, before a library reads it that might let it.

    Of a zipped `.pt`, which all of today are, the tensors themselves stay on the disk.

    Raises:
        RequestError: as for `read_state`.
    """
    if path.suffix != ".safetensors":  # which holds nothing that could run
        _read(path, mmap=zipfile.is_zipfile(path))


def _read(path: Path, mmap: bool) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        if path.suffix not in PICKLED:
            raise RequestError(
                f"{path} is not a file of weights; expected .safetensors, or one of {', '.join(PICKLED)} as published."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the errors below say what is wrong with the file
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except RequestError:
        raise
    except pickle.UnpicklingError as error:
        raise RequestError(
            f"{path} is refused: it is damaged, or it holds more than tensors and could run code when it is read. "
            "Fetch it again from where it was published."
        ) from error
    except Exception as error:  # torch and safetensors raise RuntimeError, EOFError, OSError and their own
        raise RequestError(
            f"{path} is damaged or not a file of weights: {first_line(error)}. Fetch it again."
        ) from error
    if not isinstance(state, dict):
        raise RequestError(f"{path} holds a {type(state).__name__}; expected named tensors.")
    return state


def tensors_of(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a state, those under `state_dict` where it has one.

    Raises:
        RequestError: there are none.
    """
    inner = state.get("state_dict", state)
    tensors = (
        {name: value for name, value in inner.items() if isinstance(value, Tensor)}
        if isinstance(inner, Mapping)
        else {}
    )
    if not tensors:
        raise RequestError(f"{path} holds no tensors; expected the weights of a network.")
    return tensors
