"""The image-text networks that a reward is fitted on: a CLIP or a SigLIP in transformers' layout.

A backbone is named by one of `PUBLISHED`, a folder, or a registered reward whose weights lie in such a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import RequestError, first_line
from ...models.files.fetching import NotHere, hub_file
from ...registry import get_registry
from ...rewards.loading import files_of, find_reward
from ...rewards.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from ...rewards.weights import load_pretrained
from ...utils.json_files import read_json
from ...utils.messages import shown
from ...utils.paths import looks_like_path, user_path

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel"}
"""By a configuration's `model_type`."""
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of its filters."""


@dataclass(frozen=True)
class BackbonePlace:
    """Where a backbone's files are.

    Attributes:
        name: as typed.
        folder: on this machine; None for a repository's.
        hub: the repository; empty for a folder's.
        revision: its commit.
    """

    name: str
    folder: Path | None = None
    hub: str = ""
    revision: str = ""

    def file(self, filename: str) -> Path:
        """One of its files, fetched where it is a repository's; a dry run notes it, and does not open it.

        Raises:
            RequestError: it is not there.
        """
        if self.folder is not None:
            return self.folder / filename
        try:
            return hub_file(self.hub, filename, revision=self.revision)
        except NotHere:
            return Path(filename)
        except Exception as error:  # the hub's client raises its own and its HTTP library's errors
            raise RequestError(
                f"The backbone '{self.name}' cannot be fetched: {first_line(error)}. It is of {self.hub}: "
                f"hf download {self.hub} --revision {self.revision}"
            ) from error

    def recorded(self) -> dict[str, str]:
        """What a fitted reward's configuration says of it; a folder is copied, so that its place is not said."""
        return {"hub": self.hub, "revision": self.revision} if self.folder is None else {}


PUBLISHED = {
    "clip": BackbonePlace(
        "clip", hub="openai/clip-vit-large-patch14", revision="32bd64288804d66eefd0ccbe215aa642df71cc41"
    ),
    "siglip": BackbonePlace(
        "siglip", hub="google/siglip-base-patch16-224", revision="7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed"
    ),
}
"""CLIP ViT-L/14 (Radford et al. 2021, arXiv 2103.00020) and SigLIP ViT-B/16 (Zhai et al. 2023, arXiv 2303.15343)."""


def find_backbone(name: str) -> BackbonePlace:
    """Where the backbone of a name is; no weights are read.

    Args:
        name: `clip`, `siglip`, a folder, or a registered reward such as `emoji-clip`.

    Raises:
        RequestError: nothing of this name is there, or it is neither a CLIP nor a SigLIP.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    rewards = get_registry().entries["reward"]
    if name in rewards:
        place = BackbonePlace(name, _folder_of_reward(name))
    elif looks_like_path(name):
        place = BackbonePlace(name, user_path(name))
    else:
        raise RequestError(
            f"There is no backbone '{shown(name)}'; expected {', '.join(PUBLISHED)}, or a folder with a CLIP or a "
            "SigLIP in transformers' layout."
        )
    _check(place)
    return place


def _folder_of_reward(name: str) -> Path:
    files = files_of(find_reward(name), {})
    if not files or not (files[0].parent / CONFIG).is_file():
        raise RequestError(
            f"The weights of the reward '{name}' do not lie in transformers' layout, so nothing can be fitted on them; "
            f"expected {', '.join(PUBLISHED)}, or a folder."
        )
    return files[0].parent


def _check(place: BackbonePlace) -> None:
    folder = place.folder
    assert folder is not None
    if not folder.is_dir():
        raise RequestError(f"There is no backbone folder {shown(folder)} (looked in {folder.parent.resolve()}).")
    expected = "expected the folder of a CLIP or a SigLIP as transformers saves it"
    missing = [file for file in (CONFIG, PROCESSOR) if not (folder / file).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if not any(folder.glob("tokenizer*")):
        missing.append("tokenizer.json")
    if missing:
        raise RequestError(f"{shown(folder)} is no backbone: it has no {' and no '.join(missing)}; {expected}.")
    kind = read_json(folder / CONFIG).get("model_type")
    if kind not in CLASSES:
        raise RequestError(f"{shown(folder)} holds a network of the type '{shown(kind)}'; {expected}.")


@dataclass
class Backbone:
    """A loaded image-text network, frozen, with what it is fed.

    Attributes:
        kind: `clip` or `siglip`.
        network: both towers.
        tokenizer: of its prompts.
        preprocess: what its image tower sees.
        place: where it is from.
    """

    kind: str
    network: Any
    tokenizer: Any
    preprocess: Preprocess
    place: BackbonePlace

    def ids(self, prompts: Sequence[str]) -> Int[Tensor, "prompts tokens"]:
        """Tokens of prompts, all of one length; what is beyond it is cut."""
        length = self.network.config.text_config.max_position_embeddings
        encoded = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        ids: Tensor = encoded["input_ids"]
        return ids


def load_backbone(place: BackbonePlace, words: Path | None = None) -> Backbone:
    """The networks of a place, in float32 and evaluation mode, and its tokenizer.

    Args:
        place: from `find_backbone`.
        words: a folder with the tokenizer and the preprocessing; None where they lie with the networks.

    Raises:
        RequestError: they are not there, or cannot be loaded.
    """
    import transformers

    kind = str(read_json(place.file(CONFIG)).get("model_type"))
    name = f"backbone {place.name}"
    where, options = (place.hub, {"revision": place.revision}) if place.folder is None else (place.folder, {})
    network = load_pretrained(getattr(transformers, CLASSES[kind]), where, name, attn_implementation="eager", **options)
    if words is None:
        tokenizer = load_pretrained(transformers.AutoTokenizer, where, name, "tokenizer", **options)
    else:
        tokenizer = load_pretrained(transformers.AutoTokenizer, words, name, "tokenizer")
    preprocess = preprocess_from(place.file(PROCESSOR) if words is None else words / PROCESSOR)
    return Backbone(kind, network.float().eval().requires_grad_(False), tokenizer, preprocess, place)


def preprocess_from(path: Path) -> Preprocess:
    """What a `preprocessor_config.json` says is done to an image.

    Raises:
        RequestError: the file is damaged, or does something else than resize, crop and normalise.
    """
    config = read_json(path)
    size, crop = config.get("size"), config.get("crop_size")
    side = size.get("shortest_edge", size.get("height")) if isinstance(size, dict) else size
    cut = crop.get("height") if isinstance(crop, dict) else crop
    crops = bool(config.get("do_center_crop")) and not (isinstance(size, dict) and "height" in size)
    mean, std = config.get("image_mean") or CLIP_MEAN, config.get("image_std") or CLIP_STD
    filter_number = config.get("resample", 3)
    if not isinstance(side, int) or (crops and cut != side) or filter_number not in INTERPOLATIONS:
        raise RequestError(
            f"{path} prepares images in a way that is not known here; expected a size, a crop of the same size or "
            "none, and a bilinear or bicubic filter."
        )
    fit: Literal["crop", "squash"] = "crop" if crops else "squash"
    return Preprocess(side, fit, tuple(mean), tuple(std), INTERPOLATIONS[filter_number], floor=True)


def see(network: nn.Module, kind: str, pixels: Tensor) -> tuple[Float[Tensor, "batch w"], Float[Tensor, "batch d"]]:
    """What the image tower makes of prepared pixels: the mean of its patches, and the unit embedding."""
    towers: Any = network
    seen = towers.vision_model(pixel_values=pixels)
    patches = seen.last_hidden_state[:, 1:] if kind == "clip" else seen.last_hidden_state
    embedding = towers.visual_projection(seen.pooler_output) if kind == "clip" else seen.pooler_output
    return patches.mean(1), F.normalize(embedding, dim=-1)


def read(network: nn.Module, kind: str, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch d"]:
    """The unit embedding of prompts."""
    towers: Any = network
    pooled = towers.text_model(input_ids=ids).pooler_output
    return F.normalize(towers.text_projection(pooled) if kind == "clip" else pooled, dim=-1)
