"""Weights of reward models: found locally or on the hub, read without running anything, put into a network once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RequestError, first_line
from ..models.files.fetching import NotHere, hub_file
from ..utils.messages import nearest
from ..utils.paths import is_local_name, user_path


def find_file(
    name: str, hub: str, filename: str, given: str | Path | None = None, *, option: str = "checkpoint"
) -> Path:
    """A reward's file: what the user named, or the published one.

    Args:
        name: the reward's, for messages.
        hub: the repository the file is published in.
        filename: its name there.
        given: a file, a folder that holds `filename`, or another repository; None for `hub`.
        option: of the reward, by which it is given, for messages.

    Raises:
        RequestError: it is not there, or cannot be fetched.
    """
    if given is not None:
        path = user_path(str(given))
        if path.is_dir():
            path = path / filename
        if path.is_file():
            return path
        if path.suffix or is_local_name(given):
            others = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
            guess = nearest(path.name, others)
            hint = f" Did you mean {path.parent / guess}?" if guess else ""
            raise RequestError(
                f"There is no file {path} for the reward '{name}' (looked in {path.parent.resolve()}).{hint} It is "
                f"published: hf download {hub} {filename}"
            )
        hub = str(given)
    try:
        return hub_file(hub, filename)
    except NotHere:  # noted; a dry run does not open it
        return Path(filename)
    except Exception as error:  # the hub's client raises its own and its HTTP library's errors
        raise RequestError(
            f"The file {filename} of the reward '{name}' cannot be fetched: {first_line(error)}. It is of {hub}: "
            f"hf download {hub} {filename}, or name a folder that holds it with --set reward.{name}.{option}=FOLDER."
        ) from error


def fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Put tensors into a network that was built on the meta device: there is one set of weights in memory at most.

    Args:
        network: without weights.
        tensors: by the network's names; others are passed over.
        path: where they are from, for messages.
        dtype: the weights are kept in.

    Raises:
        RequestError: some are missing or of another shape.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise RequestError(
            f"{path} does not fit: {len(missing)} of {len(expected)} tensors are missing, such as '{missing[0]}'. It "
            "is damaged, or the checkpoint of another model."
        )
    for name, weight in expected.items():
        if tensors[name].shape != weight.shape:
            raise RequestError(
                f"{path} does not fit: '{name}' has the shape {tuple(tensors[name].shape)}; expected "
                f"{tuple(weight.shape)}."
            )
    converted = {
        name: tensors[name].to(dtype if tensors[name].is_floating_point() else tensors[name].dtype) for name in expected
    }
    network.load_state_dict(converted, assign=True)


def fill_positions(network: nn.Module) -> None:
    """Fill a network's buffers of position numbers, `0 ... n - 1`, which a checkpoint need not hold.

    Args:
        network: after `fill`; what is still on the meta device are its position numbers.
    """
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                numbers = torch.arange(buffer.shape[-1], dtype=buffer.dtype).expand(buffer.shape).clone()
                module.register_buffer(name, numbers, persistent=False)


def load_pretrained(kind: Any, place: str | Path, name: str, what: str = "weights", **options: Any) -> Any:
    """Anything of transformers' `from_pretrained`: of safetensors alone, and without code that comes with it.

    Args:
        kind: a class of transformers.
        place: a folder, or a repository of the hub.
        name: the reward's or metric's, for messages.
        what: is loaded, for messages; `weights` of a network, or another thing, a tokenizer say.
        options: of `from_pretrained`.

    Raises:
        RequestError: it is not there, is none, or is a pickle; or the checkpoint lacks tensors of the network, as one
            without a head does, which transformers would fill with random numbers.
    """
    from ..models.files.folders import check_files, quiet_loading
    from ..models.files.safety import check_config, only_pickled, pickles_are_refused
    from ..models.files.weight_files import weights_in
    from ..utils.json_files import read_json

    folder = user_path(place)
    if folder.is_dir():
        check_files(folder, deep=False)
    if what == "weights":
        options["use_safetensors"] = True
        pickled = only_pickled(folder)
        if pickled is not None:
            raise RequestError(pickles_are_refused(name, pickled))
        files = weights_in(folder)
        options |= {"variant": None if files is None else files.variant, "output_loading_info": True}
        if (folder / "config.json").is_file():
            check_config(read_json(folder / "config.json"), folder / "config.json")
    try:
        with quiet_loading():
            loaded = kind.from_pretrained(folder if folder.is_dir() else str(place), trust_remote_code=False, **options)
    except Exception as error:  # transformers, safetensors and the hub's client raise errors of many kinds
        raise RequestError(f"The {what} of '{name}' in {place} cannot be loaded: {first_line(error)}.") from error
    if what != "weights":
        return loaded
    network, told = loaded
    # Not here: what transformers computes anew or ties to another tensor.
    lacking = sorted([*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])])
    if lacking:
        raise RequestError(
            f"The weights of '{name}' in {place} do not fit: {len(lacking)} of {len(network.state_dict())} tensors of "
            f"{type(network).__name__} are missing or of another shape, such as '{lacking[0]}'. They are of another "
            "kind of network, or of one without its head; name a checkpoint of this kind."
        )
    return network
