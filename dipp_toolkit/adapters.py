r"""LoRA adapters on a network whose own weights stay frozen and shared (Hu et al. 2022, arXiv 2106.09685).

A layer with weight $W$ becomes $W + \frac{a}{r} B A$ with $A \in R^{r \times in}$, $B \in R^{out \times r}$ and $B = 0$
at the start, so an adapted network begins as the network it adapts. peft does the arithmetic; it needs no mixin of the
architecture, so DiTs and UNets are adapted alike.
"""

from __future__ import annotations

import copy
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import RequestError, first_line
from .folders import quiet_loading
from .packages import not_installed
from .sharing import weight_sharing_copy

NAME = "default"
FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class AdapterSettings:
    """How large adapters are and where they sit.

    Attributes:
        rank: r.
        alpha: a; the adapter's output is multiplied by a/r.
        targets: regular expression over module names, or their last parts; None for every linear and convolution layer
            wider than r.
    """

    rank: int = 64
    alpha: float = 64.0
    targets: str | tuple[str, ...] | None = None


def target_layers(network: nn.Module, rank: int) -> list[str]:
    """Names of the linear and convolution layers that an adapter of this rank is smaller than."""
    found = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            narrow = min(layer.in_features, layer.out_features)
        elif isinstance(layer, nn.Conv2d) and layer.groups == 1:
            narrow = min(layer.in_channels, layer.out_channels)
        else:
            continue
        if narrow > rank:
            found.append(name)
    return found


def adapted(network: nn.Module, settings: AdapterSettings, seed: int = 0) -> nn.Module:
    """A network over the same frozen weights as `network`, with an adapter of its own, in float32, as all that trains.

    Args:
        network: is not changed, but frozen: its weights are shared from now on.
        settings: of the adapter.
        seed: of the adapter's first weights.

    Raises:
        RequestError: no layer fits.
        PluginError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise not_installed("LoRA mode needs", ["peft"]) from error
    network.requires_grad_(False)
    targets: Any = settings.targets or target_layers(network, settings.rank)
    targets = targets if isinstance(targets, str) else list(targets)
    if not targets:
        raise RequestError(
            f"No layer of {type(network).__name__} is wider than lora_rank {settings.rank}, so an adapter would save "
            "nothing. Set a smaller lora_rank, or mode=full."
        )
    twin = weight_sharing_copy(network)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            twin = inject_adapter_in_model(config, twin, NAME)
        except (ValueError, re.error) as error:  # re.error is what a bad pattern raises
            raise RequestError(f"The adapter cannot be placed: {first_line(error)}.") from error
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:  # what the optimiser works on is float32, over half-precision weights too
            parameter.data = parameter.data.float()
    layers: list[Any] = [one for one in twin.modules() if isinstance(one, BaseTunerLayer)]
    for layer in layers:
        # Where weights or passes are in half precision, autocast is on and gives an adapter its dtype. peft would widen
        # its input first, so that autocast narrowed it again: a second copy of every activation, kept.
        layer.cast_input_dtype_enabled = False
    return twin.train()


def is_adapted(network: nn.Module) -> bool:
    """Whether a network carries an adapter."""
    return hasattr(network, "peft_config")


def merged(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A plain network, of the architecture's own modules alone, with the adapter added into a copy of the weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    with quiet_loading():  # diffusers warns of casts that are meant here
        plain = copy.deepcopy(network).to(dtype)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=False)
            parent, _, own = name.rpartition(".")
            setattr(plain.get_submodule(parent), own, layer.get_base_layer())
    del plain.peft_config  # type: ignore[union-attr]
    return plain.requires_grad_(False)


def save_adapter(network: nn.Module, folder: Path) -> None:
    """Write the adapter in peft's own layout, `adapter_config.json` and `adapter_model.safetensors`."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config: Any = network.peft_config[NAME]  # type: ignore[index,union-attr]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config.save_pretrained(str(folder))
    tensors: dict[str, Tensor] = get_peft_model_state_dict(network, adapter_name=NAME)
    save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, folder / FILES[1])


def load_adapter(network: nn.Module, folder: Path) -> nn.Module:
    """A network over the same weights as `network` with the adapter saved in `folder`, trainable.

    Raises:
        RequestError: the files are missing or do not fit.
    """
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file

    for name in FILES:
        if not (folder / name).is_file():
            raise RequestError(f"There is no adapter in {folder}: {name} is missing.")
    try:
        config, tensors = LoraConfig.from_pretrained(str(folder)), load_file(folder / FILES[1])
    except Exception as error:  # peft, JSON and safetensors raise errors of many kinds
        raise RequestError(f"The adapter in {folder} is damaged: {first_line(error)}.") from error
    if not isinstance(config, LoraConfig):
        raise RequestError(f"The adapter in {folder} is a {type(config).__name__}; expected a LoraConfig.")
    targets = config.target_modules
    chosen = targets if isinstance(targets, str) else tuple(sorted(targets or ()))
    twin = adapted(network, AdapterSettings(config.r, config.lora_alpha, chosen))
    outcome: Any = set_peft_model_state_dict(twin, tensors, adapter_name=NAME)
    if outcome.unexpected_keys:
        raise RequestError(f"The adapter in {folder} does not fit {type(network).__name__}.")
    return twin
