r"""LoRA adapters on a network whose own weights stay frozen and shared (Hu et al. 2022, arXiv 2106.09685).

A layer with weight $W$ becomes $W + \frac{a}{r} B A$ with $A \in R^{r \times in}$, $B \in R^{out \times r}$ and $B = 0$
at the start, so an adapted network begins as the network it adapts. peft places, names and saves the weights; it needs
no mixin of the architecture, so DiTs and UNets are adapted alike. `lora_layers` computes with them.
"""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RequestError, RunError, first_line
from ..utils.packages import not_installed
from .files.folders import quiet_loading
from .quantized_layers import is_quantized, quiet_kernels
from .weight_sharing import weight_sharing_copy

NAME = "default"
FILES = ("adapter_config.json", "adapter_model.safetensors")
LARGEST_ROUNDING = 0.05
"""Share of an adapter's update that may be lost when it is merged into half-precision weights."""
PEFT_PREFIX = "base_model.model."
"""What every key of a peft file begins with: `PeftModel` wraps the network in a tuner, which wraps it once more."""


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
    names = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            narrow = min(layer.in_features, layer.out_features)
        elif isinstance(layer, nn.Conv2d) and layer.groups == 1:
            narrow = min(layer.in_channels, layer.out_channels)
        else:
            continue
        if narrow > rank:
            names.append(name)
    return names


def adapted(network: nn.Module, settings: AdapterSettings, seed: int = 0, base: str | None = None) -> nn.Module:
    """A network over the same frozen weights as `network`, with an adapter of its own, in float32, as all that trains.

    Args:
        network: is not changed, but frozen: its weights are shared from now on.
        settings: of the adapter.
        seed: of the adapter's first weights.
        base: hub id of the pipeline that `network` is the published network of, for whoever loads the adapter alone.

    Raises:
        RequestError: no layer fits.
        PluginError: peft is not installed.
    """
    try:
        with quiet_kernels():
            from peft import LoraConfig, inject_adapter_in_model
            from peft.tuners.tuners_utils import BaseTunerLayer

            from .lora_layers import compute_in_pairs
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
    alpha: Any = settings.alpha  # peft's signature says int, and its arithmetic takes a float
    config = LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=targets, base_model_name_or_path=base)
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
    layers: list[Any] = [layer for layer in twin.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        # Where weights or passes are in half precision, autocast is on and gives an adapter its dtype. peft would widen
        # its input first, so that autocast narrowed it again: a second copy of every activation, kept.
        layer.cast_input_dtype_enabled = False
    compute_in_pairs(twin)
    return twin.train()


def is_adapted(network: nn.Module) -> bool:
    """Whether a network carries an adapter."""
    return hasattr(network, "peft_config")


def merged(network: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A plain network, of the architecture's own modules alone, with the adapter added into a copy of the weights.

    Args:
        network: carries an adapter; is not changed.
        dtype: of the result. Where None, every weight keeps the one it is frozen in, so that a base which is trained on
            in bfloat16 is not written twice as large; but float32 where rounding would cost more than
            `LARGEST_ROUNDING` of what the adapter adds, which a short training's small update would not survive.
    """
    if dtype is None and rounding(network) > LARGEST_ROUNDING:
        dtype = torch.float32
    with quiet_loading():  # diffusers warns of casts that are intended here
        plain = copy.deepcopy(network)
        plain = plain if dtype is None else plain.to(dtype)
    merge_in_place(plain)
    return plain.requires_grad_(False)


def over(network: nn.Module, base: nn.Module) -> nn.Module:
    """A network's adapter over other weights: those that its frozen weights of 8 or 4 bits were made of.

    Args:
        network: carries an adapter; is not changed.
        base: of the same architecture, without an adapter; frozen, and shared by the result.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config: Any = network.peft_config[NAME]  # type: ignore[index,union-attr]
    targets = config.target_modules
    chosen = targets if isinstance(targets, str) else tuple(sorted(targets))
    twin = adapted(base, AdapterSettings(config.r, config.lora_alpha, chosen), base=config.base_model_name_or_path)
    state = {
        name: tensor.detach().cpu() for name, tensor in get_peft_model_state_dict(network, adapter_name=NAME).items()
    }
    set_peft_model_state_dict(twin, state, adapter_name=NAME)
    return twin


@torch.no_grad()
def rounding(network: nn.Module) -> float:
    r"""What merging an adapter into weights of their own precision loses, as a share of what the adapter adds.

    $\sqrt{\sum \lVert \mathrm{round}(W + \Delta) - (W + \Delta) \rVert^2 / \sum \lVert \Delta \rVert^2}$ with
    $\Delta = \frac{a}{r} B A$, over all layers; 0 where nothing is added or the weights are float32. About 0.001 of the
    size of the weights themselves is lost in bfloat16, and an eighth of that in float16.
    """
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [layer for layer in network.modules() if isinstance(layer, LoraLayer)]
    if all(layer.get_base_layer().weight.dtype.itemsize >= 4 for layer in layers):
        return 0.0
    lost, added = 0.0, 0.0
    for layer in layers:
        weight: Tensor = layer.get_base_layer().weight
        update: Tensor = layer.get_delta_weight(NAME).float()
        added += float(update.square().sum())
        if weight.dtype.itemsize < 4:
            exact = weight.float() + update
            lost += float((exact.to(weight.dtype).float() - exact).square().sum())
    return math.sqrt(lost / added) if added else 0.0


def merge_in_place(network: nn.Module) -> None:
    """Add a network's adapter into its weights, and leave the architecture's own modules alone.

    Raises:
        RunError: they are in 8 or 4 bits, into which nothing can be added: put the adapter `over` other ones.
    """
    if is_quantized(network):
        raise RunError("An adapter cannot be merged into weights of 8 or 4 bits; expected those they were made of.")
    from peft.tuners.tuners_utils import BaseTunerLayer

    from .lora_layers import forget_pairs

    forget_pairs(network)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=False)
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, layer.get_base_layer())
    del network.peft_config  # type: ignore[union-attr]


def save_adapter(network: nn.Module, folder: Path, pipeline: Any = None, component: str = "") -> None:
    r"""Write the adapter as peft's `PeftModel.from_pretrained` and diffusers' `load_lora_weights` expect it.

    `adapter_config.json` and `adapter_model.safetensors` are peft's, with $a$ and $r$ in the former.
    `pytorch_lora_weights.safetensors` is diffusers'. It holds $\frac{a}{r} B$ for $B$ and says $a = r$, so that its
    strength is right for loaders that read no metadata as well.

    Args:
        network: carries an adapter.
        folder: where to; replaced.
        pipeline: the diffusers class that loads LoRA files for such networks; diffusers' file is left out where it has
            no loader for them (PixArt's has none), or None is given.
        component: that the network is of this pipeline, `"unet"` or `"transformer"`.
    """
    from peft import get_peft_model_state_dict

    config: Any = network.peft_config[NAME]  # type: ignore[index,union-attr]
    write_adapter(folder, config, get_peft_model_state_dict(network, adapter_name=NAME), pipeline, component)


def write_adapter(
    folder: Path, config: Any, state: Mapping[str, Tensor], pipeline: Any = None, component: str = ""
) -> None:
    """Write an adapter that is not on a network, as `save_adapter` does.

    Args:
        folder: where to; replaced.
        config: peft's `LoraConfig` of it.
        state: its tensors under peft's names without `PEFT_PREFIX`, such as `"blocks.0.to_q.lora_A.weight"`.
        pipeline: see `save_adapter`.
        component: see `save_adapter`.
    """
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from safetensors.torch import save_file

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config.save_pretrained(str(folder))
    described = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    layers = sorted(described["target_modules"]) if isinstance(described["target_modules"], list) else None
    described |= {"target_modules": layers or described["target_modules"]}  # a set's order is another in every process
    (folder / FILES[0]).write_text(json.dumps(described, indent=2, sort_keys=True), encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # diffusers' `load_lora_adapter(folder, weight_name="adapter_model.safetensors", prefix=None)` leaves peft's prefix
    # on, and looks for the layers by the names of the keys: an empty tensor of its own name says where each one is.
    index = {name.rpartition(".lora_")[0]: torch.empty(0) for name in tensors}
    # All layers have one rank and strength; diffusers before 0.40 does not read an adapter that does not say so.
    one_rank = {"r": config.r, "rank_pattern": {}, "alpha_pattern": {}, "target_modules": sorted(index)}
    strength = one_rank | {"lora_alpha": config.lora_alpha}
    save_file(
        {**{PEFT_PREFIX + name: tensor for name, tensor in tensors.items()}, **index},
        folder / FILES[1],
        metadata={"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(strength)},
    )
    if hasattr(pipeline, "save_lora_weights"):
        scaled = {
            name: tensor * (config.lora_alpha / config.r) if ".lora_B." in name else tensor
            for name, tensor in tensors.items()
        }
        unscaled = one_rank | {"lora_alpha": config.r}
        files = {f"{component}_lora_layers": scaled, f"{component}_lora_adapter_metadata": unscaled}
        pipeline.save_lora_weights(folder, **files)


def read_adapter(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """The adapter saved in a folder: peft's `LoraConfig`, and the tensors under peft's names without `PEFT_PREFIX`.

    Folders of before peft's prefix was written have the bare names, and are read as well.

    Raises:
        RequestError: the files are missing, damaged, or of an adapter of another kind.
    """
    from peft import LoraConfig
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
    return config, {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in tensors.items() if tensor.numel()}


def load_adapter(network: nn.Module, folder: Path) -> nn.Module:
    """A network over the same weights as `network` with the adapter saved in `folder`, trainable.

    Raises:
        RequestError: the files are missing or do not fit.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config, tensors = read_adapter(folder)
    targets = config.target_modules
    chosen = targets if isinstance(targets, str) else tuple(sorted(targets or ()))
    twin = adapted(network, AdapterSettings(config.r, config.lora_alpha, chosen))
    expected: dict[str, Tensor] = get_peft_model_state_dict(twin, adapter_name=NAME)
    misfits = [name for name in sorted({*expected, *tensors}) if _shape(expected, name) != _shape(tensors, name)]
    if misfits:
        raise RequestError(
            f"The adapter in {folder} does not fit {type(network).__name__}: {misfits[0]} is "
            f"{_shape(tensors, misfits[0])} there, and the network's is {_shape(expected, misfits[0])} (one of "
            f"{len(misfits)} that differ)."
        )
    set_peft_model_state_dict(twin, tensors, adapter_name=NAME)
    return twin


def _shape(tensors: dict[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "missing"
