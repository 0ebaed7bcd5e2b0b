"""LoRA files fused into a network, once: the sum is kept as a network's folder of its own.

Which layer a key means is for diffusers to say: `lora_state_dict` of the pipeline's class converts kohya's and others'
keys. Its loader then passes over, with a warning at most, what belongs to no layer; here all of a file is fused, or
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import RequestError, first_line
from ...utils.content_digests import file_digest
from ...utils.json_files import read_json
from ...utils.messages import shown
from ...utils.packages import not_installed
from ..components import empty_component, load_component
from ..files.fetching import NotHere, only_looking
from ..files.folders import quiet_loading
from ..files.safety import stock_pipeline
from ..files.weight_files import PICKLE, weights_in
from ..lora import NAME, PEFT_PREFIX, merge_in_place
from .lora_file import DOWN, LoraFile
from .source import WeightSource, parse_source
from .store import converted_folder

AMBIGUOUS = {
    "lora_unet_add_embedding_linear_1.": "lora_unet_label_emb_0_0.",
    "lora_unet_add_embedding_linear_2.": "lora_unet_label_emb_0_2.",
}
"""Of SDXL in kohya's layout: names that diffusers 0.42 confuses, with distinct ones."""
UNDERSCORES = re.compile("^lora_unet_+")
"""What kohya's keys begin with; VideoX-Fun writes `lora_unet__layers_0`, a name that diffusers 0.42 does not know."""
Layers = Mapping[str, tuple[Tensor, Tensor]]
"""Of each layer, `(rank, in, ...)` and `(out, rank, ...)` with the file's own strength in the latter."""

HALF = re.compile(r"(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")
TEXT = re.compile(r"(text_encoders?(_\d)?|lora_te\d?)[._](?P<rest>.*)")
"""What a text encoder's keys begin with, in all layouts."""


def fused_weights(folder: Path, component: str, weights: Path, addresses: Sequence[str]) -> Path:
    """A folder with a network's weights and LoRA files added to them in their order, made where it is not kept already.

    The sum is kept in float32: an update that is smaller than a half-precision weight's last digit would be lost.

    Args:
        folder: the pipeline's.
        component: the network's name in it.
        weights: folder of the weights that are added to.
        addresses: `./file.safetensors`, `OWNER/REPO:path/in/repo.safetensors`, a folder or a repository; each may have
            a scale, as in `...=0.125`.

    Returns:
        The folder. In a dry run `weights`, after those files that are here have been looked at.

    Raises:
        RequestError: a file is not there, is not a LoRA, or does not fit the network; nothing is kept then.
    """
    if only_looking():
        _look_at(folder, component, addresses)
        return weights
    files = [LoraFile.find(source) for source in _sources(addresses)]
    own = weights_in(weights) or weights_in(weights, PICKLE)
    base = {name: file_digest(weights / name) for name in ("config.json", *(own.names if own is not None else ()))}
    pipeline = _pipeline_of(folder)
    made_of = {
        "by": f"diffusers {version('diffusers')}",  # whose converters learn new keys
        "network": base,
        "class": getattr(pipeline, "__name__", ""),
        "lora": [[*file.digests, file.source.scale] for file in files],
    }

    def make(place: Path) -> None:
        network = load_component(folder, component, weights)
        for file in files:
            fuse(network, layers_of(file, network, pipeline, component), file.source.scale)
        with quiet_loading():
            network.save_pretrained(place)

    return converted_folder(made_of, make)


def _sources(addresses: Sequence[str]) -> list[WeightSource]:
    return [parse_source(address, scaled=True) for address in addresses]


def _pipeline_of(folder: Path) -> Any:
    return stock_pipeline(read_json(folder / "model_index.json"))


def _look_at(folder: Path, component: str, addresses: Sequence[str]) -> None:
    """Refuse what would be refused, as far as it is here; what would be fetched is noted."""
    shell = empty_component(folder, component)
    for source in _sources(addresses):
        with suppress(NotHere):
            layers_of(LoraFile.find(source), shell, _pipeline_of(folder), component)


def layers_of(file: LoraFile, network: Any, pipeline: Any, component: str) -> Layers:
    """The pairs of a LoRA file by the names of the network's layers.

    Args:
        file: the LoRA.
        network: diffusers' network.
        pipeline: the diffusers class that it belongs to; None for another one's.
        component: the network's name in that pipeline.

    Raises:
        RequestError: a key belongs to no layer of the network, to a text encoder, or has another shape.
    """
    tensors = file.read()
    texts = [key for key in tensors if TEXT.match(key)]
    if any(bool(tensors[key].any()) for key in texts if DOWN.fullmatch(key) is None and not key.endswith(".alpha")):
        raise RequestError(
            f"The LoRA {file.name} changes text encoders too ({len(texts)} keys such as {shown(texts[0])}), and these "
            "stay as they are here. Fuse it with diffusers (load_lora_weights, fuse_lora, unload_lora_weights, "
            "save_pretrained), and name the folder that this writes as the generator."
        )
    tensors = {key: tensor for key, tensor in tensors.items() if key not in texts}
    if not tensors:
        raise RequestError(f"The LoRA {file.name} changes text encoders alone, and these stay as they are here.")
    names = {match["layer"] for key in tensors if (match := DOWN.fullmatch(key)) is not None}
    peft = {key.removeprefix(PEFT_PREFIX): tensor for key, tensor in tensors.items()}
    if any(key.startswith(PEFT_PREFIX) for key in tensors) and _own_layers(peft, network):
        if file.config is None:
            raise RequestError(
                f"The LoRA {file.name} is in peft's layout, whose strength is in adapter_config.json, and there is "
                "none beside it. Copy it there as well."
            )
        tensors = peft
    else:
        tensors = _converted(tensors, network, pipeline, file)
    halves: dict[str, dict[str, Tensor]] = {}
    unconverted = []
    for key, tensor in tensors.items():
        match = HALF.fullmatch(key.removeprefix(f"{component}."))
        if match is None:
            down = DOWN.fullmatch(key)
            unconverted += [] if down is None else [down["layer"]]
        else:
            halves.setdefault(match["layer"], {})[match["half"]] = tensor
    _check_fit(halves, unconverted, len(names), network, file)
    return {layer: (both["A"], both["B"]) for layer, both in halves.items()}


def fuse(network: nn.Module, layers: Layers, scale: float) -> None:
    r"""Add $s B A$ to the weight of every layer, in place; peft knows the product of convolutions.

    Raises:
        PluginError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise not_installed("LoRA files need", ["peft"]) from error
    for rank in sorted({len(down) for down, _ in layers.values()}):
        state = {
            f"{layer}.lora_{half}.weight": factor
            for layer, both in layers.items()
            if len(both[0]) == rank
            for half, factor in zip("AB", both, strict=True)
        }
        targets = [key.removesuffix(".lora_A.weight") for key in state if key.endswith(".lora_A.weight")]
        inject_adapter_in_model(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), network, NAME, state_dict=state
        )
        set_peft_model_state_dict(network, state, NAME)
        for layer in network.modules():
            if isinstance(layer, LoraLayer):
                layer.set_scale(NAME, scale)
        with torch.no_grad():
            merge_in_place(network)


def _own_layers(tensors: Mapping[str, Tensor], network: nn.Module) -> bool:
    """Whether keys name the network's own layers, the most of them at least."""
    layers = {match["layer"] for key in tensors if (match := HALF.fullmatch(key)) is not None}
    return 2 * len(layers & {name for name, _ in network.named_modules()}) > len(layers)


def _converted(tensors: dict[str, Tensor], network: Any, pipeline: Any, file: LoraFile) -> dict[str, Tensor]:
    """By diffusers' names of a pipeline's layers, and peft's of the pair; alphas say nothing any more and are gone."""
    from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    tensors = {UNDERSCORES.sub("lora_unet_", key): tensor for key, tensor in tensors.items()}
    for name, other in AMBIGUOUS.items():
        tensors = {key.replace(name, other): tensor for key, tensor in tensors.items()}
    if hasattr(pipeline, "lora_state_dict"):
        sgm = {"unet_config": network.config} if issubclass(pipeline, StableDiffusionXLLoraLoaderMixin) else {}
        try:
            with quiet_loading():
                result = pipeline.lora_state_dict(dict(tensors), **sgm)
        except Exception as error:  # KeyError, ValueError, NotImplementedError, AssertionError: names it does not know
            raise RequestError(
                f"diffusers cannot convert the keys of the LoRA {file.name}, such as {shown(next(iter(tensors)))}, for "
                f"a {pipeline.__name__} ({first_line(error).strip(': ')}). Expected one made for this architecture."
            ) from error
        tensors = result[0] if isinstance(result, tuple) else result
    with quiet_loading():
        tensors = convert_unet_state_dict_to_peft(tensors)
    return {key: tensor for key, tensor in tensors.items() if not key.endswith(".alpha")}


def _check_fit(
    halves: Mapping[str, Mapping[str, Tensor]],
    unconverted: Sequence[str],
    expected: int,
    network: nn.Module,
    file: LoraFile,
) -> None:
    """Refuse a LoRA of which something would not be fused.

    Args:
        halves: A and B by layer.
        unconverted: layers whose keys diffusers left unchanged.
        expected: layers that the file had before its keys were converted.
        network: that it is fused into.
        file: the LoRA.
    """
    kind, own = type(network).__name__, dict(network.named_modules())
    missing = [*unconverted, *(layer for layer in halves if layer not in own)]
    problems = {layer: _misfit(own[layer], both) for layer, both in halves.items() if layer in own}
    misfits = {layer: text for layer, text in problems.items() if text}
    if missing or misfits:
        parts = []
        if missing:
            parts.append(f"{len(missing)} are not there, such as {_shown_layer(missing[0], halves)}")
        if misfits:
            layer = next(iter(misfits))
            parts.append(f"{len(misfits)} have other shapes, such as {shown(layer)}: {misfits[layer]}")
        raise RequestError(
            f"The LoRA {file.name} does not fit {kind}: of the {len(halves) + len(unconverted)} layers that it "
            f"changes, {' and '.join(parts)}. Expected one made for this architecture{_layouts(unconverted)}."
        )
    if len(halves) < expected:
        raise RequestError(
            f"diffusers converts {len(halves)} of the {expected} layers of the LoRA {file.name} for {kind}, and passes "
            "over the others. Expected one whose names it knows, such as diffusers' own layout."
        )


def _misfit(layer: nn.Module, both: Mapping[str, Tensor]) -> str:
    """What is wrong with a pair, empty where nothing is."""
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return f"it is a {type(layer).__name__}, which has no LoRA"
    if set(both) != {"A", "B"}:
        return f"lora_{'B' if 'A' in both else 'A'} is missing"
    out, inside, *kernel = layer.weight.shape
    down, up = both["A"], both["B"]
    fits = (len(down), inside, *kernel), (out, len(down), *(1 for _ in kernel))
    if (tuple(down.shape), tuple(up.shape)) == fits:
        return ""
    return (
        f"{tuple(down.shape)} and {tuple(up.shape)} in the file, where its weight {tuple(layer.weight.shape)} asks for "
        f"{fits[0]} and {fits[1]}"
    )


def _layouts(unconverted: Sequence[str]) -> str:
    kohya = any(name.startswith("lora_") for name in unconverted)
    return " in diffusers' or peft's layout; kohya's keys are not converted by diffusers for it" if kohya else ""


def _shown_layer(name: str, halves: Mapping[str, Mapping[str, Tensor]]) -> str:
    shapes = [str(tuple(tensor.shape)) for tensor in halves.get(name, {}).values()]
    return f"{shown(name)} ({' and '.join(shapes)})" if shapes else shown(name)
