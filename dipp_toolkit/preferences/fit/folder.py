"""The folder of a fitted reward: standard files, whole in itself, written at once and read without running anything.

    config.json                 sizes, the backbone's repository and commit, members
    model.safetensors           the heads and the score's units
    adapter-0/ ...              LoRA adapters as peft saves them, one a member, where the backbone was adapted
    backbone/                   the towers, where they came from a folder
    tokenizer.json ...          of the backbone, and preprocessor_config.json
    fit.json                    data, counts, agreement, calibration, seeds, versions
    trainer_state.json ...      TRL's curves, one file a member and stage
    README.md                   a model card

Adapters are kept beside the backbone and are merged into it when the reward is loaded. Merged weights would take as
much room as the backbone again for each member; an adapter takes a hundredth, the published backbone stays what its
licence and its commit say, and a score costs the same.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from ...errors import RequestError, first_line
from ...models.files.folders import check_files, quiet_loading
from ...rewards.fitted_folders import FIT
from ...utils.atomic import write_tensors, write_text
from ...utils.json_files import read_json
from ...utils.messages import shown
from ...utils.tensor_files import read_state
from .backbone import CONFIG, PROCESSOR, Backbone, BackbonePlace, load_backbone
from .network import FittedConfig, PreferenceNetwork
from .scorer import FittedScorer

WEIGHTS, BACKBONE, ADAPTER = "model.safetensors", "backbone", "adapter"
MOST_SIZE, MOST_MEMBERS = 2**16, 64


@dataclass(frozen=True)
class FittedFolder:
    """A fitted reward that was loaded.

    Attributes:
        scorer: the networks, with their units.
        backbone: the first member's, with tokenizer and preprocessing.
    """

    scorer: FittedScorer
    backbone: Backbone


def config_of(folder: Path) -> FittedConfig:
    """What a fitted reward's `config.json` says.

    Raises:
        RequestError: it is missing or damaged.
    """
    content = read_json(folder / CONFIG)
    known: dict[str, Any] = {name: content.get(name) for name in ("kind", "width", "embedding", "members", "lora_rank")}
    channels: dict[str, Any] = {name: content.get(name) for name in ("image_mean", "image_std")}
    backbone = content.get("backbone")
    fine = (
        content.get("model_type") == FittedConfig.model_type
        and known["kind"] in ("clip", "siglip")
        and all(_is_count(known[name], 1, MOST_SIZE) for name in ("width", "embedding"))
        and _is_count(known["members"], 1, MOST_MEMBERS)
        and _is_count(known["lora_rank"], 0, MOST_SIZE)
        and all(_is_channels(values) for values in channels.values())
        and (backbone == {} or _is_repository(backbone))
    )
    if not fine:
        raise RequestError(f"{shown(folder / CONFIG)} is not that of a fitted reward.")
    config = FittedConfig(backbone=backbone, **known, **channels)
    return config


def _is_count(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_channels(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values)


def _is_repository(value: Any) -> bool:
    """Whether this is a repository of the hub with a commit, and no branch that somebody moves."""
    if not isinstance(value, dict) or value.keys() != {"hub", "revision"} or not all(map(_is_text, value.values())):
        return False
    return (
        re.fullmatch(r"[\w.-]+/[\w.-]+", value["hub"]) is not None
        and re.fullmatch("[0-9a-f]{40}", value["revision"]) is not None
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def place_of(folder: Path, config: FittedConfig) -> BackbonePlace:
    """Where a fitted reward's backbone is: in its folder, or in a repository."""
    if not config.backbone:
        return BackbonePlace(BACKBONE, folder / BACKBONE)
    hub, revision = (str(config.backbone.get(key, "")) for key in ("hub", "revision"))
    return BackbonePlace(hub, hub=hub, revision=revision)


def files_of_folder(folder: Path) -> list[Path]:
    """The files that a fitted reward's scores are made of.

    Raises:
        RequestError: one is not there.
    """
    config = config_of(folder)
    place = place_of(folder, config)
    needed = [folder / name for name in (WEIGHTS, CONFIG, PROCESSOR)]
    needed += [folder / f"{ADAPTER}-{member}" / "adapter_model.safetensors" for member in _adapted(config)]
    missing = next((path for path in needed if not path.is_file()), None)
    if missing is not None:
        raise RequestError(
            f"The fitted reward in {shown(folder)} is not whole: it has no {missing.relative_to(folder)}."
        )
    return [*needed, *sorted(folder.glob("tokenizer*")), *_backbone_files(place)]


def _backbone_files(place: BackbonePlace) -> list[Path]:
    config = place.file(CONFIG)
    return [config] if place.folder is None else [config, *sorted(place.folder.glob("*.safetensors*"))]


def _adapted(config: FittedConfig) -> range:
    return range(config.members if config.lora_rank else 0)


def load_folder(folder: Path) -> FittedFolder:
    """The networks of a fitted reward, on the CPU, in float32.

    Raises:
        RequestError: a file is missing, damaged or not as expected.
    """
    files_of_folder(folder)
    check_files(folder, deep=False)
    config = config_of(folder)
    backbones = [_load_backbone(folder, config) for _ in range(max(1, len(_adapted(config))))]
    networks = [PreferenceNetwork(config, backbones[min(k, len(backbones) - 1)].network) for k in range(config.members)]
    networks = [
        _with_adapter(network, folder, k) if config.lora_rank else network for k, network in enumerate(networks)
    ]
    scorer = FittedScorer(networks)
    tensors = read_state(folder / WEIGHTS)
    expected = _own_tensors(scorer)
    wrong = [name for name, tensor in expected.items() if name not in tensors or tensors[name].shape != tensor.shape]
    if wrong:
        raise RequestError(
            f"{shown(folder / WEIGHTS)} does not fit {CONFIG}: '{wrong[0]}' is missing or of another shape."
        )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])
    return FittedFolder(scorer.eval().requires_grad_(False), backbones[0])


def _load_backbone(folder: Path, config: FittedConfig) -> Backbone:
    return load_backbone(place_of(folder, config), words=folder)


def _with_adapter(network: PreferenceNetwork, folder: Path, member: int) -> PreferenceNetwork:
    from peft import PeftModel

    place = folder / f"{ADAPTER}-{member}"
    try:
        with quiet_loading():
            adapted: Any = PeftModel.from_pretrained(cast(Any, network), str(place))
            return cast(PreferenceNetwork, adapted.merge_and_unload())
    except Exception as error:  # peft and safetensors raise errors of many kinds
        raise RequestError(f"The adapter in {shown(place)} cannot be loaded: {first_line(error)}.") from error


def _own_tensors(scorer: FittedScorer) -> dict[str, torch.Tensor]:
    """All but the backbones' weights."""
    return {name: tensor for name, tensor in scorer.state_dict().items() if ".backbone." not in name}


def write_folder(
    folder: Path,
    scorer: FittedScorer,
    backbone: Backbone,
    facts: Mapping[str, Any],
    card: str,
    adapters: list[Any],
    states: Mapping[str, Any],
) -> None:
    """Write a fitted reward into a folder that is being made.

    Args:
        folder: it exists, and is empty.
        scorer: the members.
        backbone: as it was before the fit.
        facts: for `fit.json`.
        card: for `README.md`.
        adapters: the members' `PeftModel`s; none where the backbone was frozen.
        states: TRL's records by file name.

    Raises:
        RequestError: a file of the backbone cannot be read.
        OSError: it cannot be written.
    """
    scorer.first.config.save_pretrained(folder)
    write_tensors(folder / WEIGHTS, _own_tensors(scorer), {"format": "pt"})
    backbone.tokenizer.save_pretrained(folder)
    shutil.copyfile(backbone.place.file(PROCESSOR), folder / PROCESSOR)
    if backbone.place.folder is not None:
        (folder / BACKBONE).mkdir()
        for path in _backbone_files(backbone.place):
            shutil.copyfile(path, folder / BACKBONE / path.name)
    for member, adapter in enumerate(adapters):
        adapter.save_pretrained(folder / f"{ADAPTER}-{member}")
        (folder / f"{ADAPTER}-{member}" / "README.md").unlink(missing_ok=True)
    for name, state in states.items():
        state.save_to_json(str(folder / name))
    write_text(folder / FIT, json.dumps(facts, indent=2) + "\n")
    write_text(folder / "README.md", card)
