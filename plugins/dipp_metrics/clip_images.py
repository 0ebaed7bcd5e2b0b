"""The image tower of a CLIP as an extractor: unit embeddings, from transformers or from open_clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.rewards.open_clip_models import preprocess_of
from dipp_toolkit.rewards.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from dipp_toolkit.rewards.weights import load_pretrained
from dipp_toolkit.utils.json_files import read_json
from dipp_toolkit.utils.messages import unknown_name
from dipp_toolkit.utils.packages import how_to_install, missing_of, not_installed
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.tensor_files import PICKLED, check_weights

Function = Callable[[Tensor], Float[Tensor, "batch dimensions"]]
OPEN_CLIP_CONFIG = "open_clip_config.json"


def load_clip_images(name: str) -> tuple[Function, nn.Module]:
    """A function from images in [0, 1] to unit embeddings, and its network.

    Images are prepared as the model's own files say, with Pillow: rounded to 8 bits, the shorter side resized by
    bicubic interpolation, the centre cropped.

    Args:
        name: a folder of transformers or open_clip, a hub id of transformers, or `MODEL/TAG` of open_clip.

    Raises:
        RequestError: there is no such model, or it cannot be loaded.
    """
    path = user_path(name)
    if (path / OPEN_CLIP_CONFIG).is_file():
        for weights in sorted(file for file in path.iterdir() if file.suffix in PICKLED):
            check_weights(weights)
        return _of_open_clip(name, f"local-dir:{path.resolve()}", None)
    if (path / "config.json").is_file():
        return _of_transformers(str(path))
    if path.exists() or name.startswith((".", "/", "~")):
        raise RequestError(
            f"{path} is not a folder of a CLIP (looked for {path.resolve()}): expected config.json of transformers or "
            f"{OPEN_CLIP_CONFIG}, with the weights beside it."
        )
    model, _, tag = name.partition("/")
    models, tags = _known_to_open_clip(model)
    if model in models:
        if tag not in tags:
            raise RequestError(unknown_name(f"set of weights of {model}", tag, tags))
        return _of_open_clip(name, model, tag)
    if name.count("/") != 1:
        if missing_of(["open_clip"]):
            raise not_installed(f"The CLIP '{name}' needs", ["open_clip"], extra="metrics")
        raise RequestError(unknown_name("open_clip model", model, models) + " Name its weights too: clip:MODEL/TAG.")
    try:
        return _of_transformers(name)
    except RequestError as error:
        if not missing_of(["open_clip"]):
            raise
        install = how_to_install(["open_clip"], extra="metrics")
        raise RequestError(
            f"{error} Where it is a model of open_clip, which is not installed, run: {install}"
        ) from error


def _known_to_open_clip(model: str) -> tuple[list[str], list[str]]:
    try:
        import open_clip
    except ImportError:
        return [], []
    return open_clip.list_models(), open_clip.list_pretrained_tags_by_model(model)


def _of_open_clip(name: str, model: str, tag: str | None) -> tuple[Function, nn.Module]:
    if missing_of(["open_clip"]):
        raise not_installed(f"The CLIP '{name}' needs", ["open_clip"], extra="metrics")
    try:
        import open_clip

        network: Any = open_clip.create_model(model, pretrained=tag)
    except Exception as error:  # open_clip, torch and the hub's client raise errors of many kinds
        raise RequestError(f"The CLIP '{name}' cannot be loaded with open_clip: {first_line(error)}.") from error
    network = network.float().eval().requires_grad_(False)
    preprocess = preprocess_of(network)
    return lambda images: network.encode_image(preprocess(images), normalize=True), network


def _of_transformers(name: str) -> tuple[Function, nn.Module]:
    from transformers import CLIPModel

    try:
        network: Any = load_pretrained(CLIPModel, name, f"clip:{name}", attn_implementation="eager")
    except RequestError as error:
        raise RequestError(
            f"{error} Fetch it with: hf download {name}, and name the folder, as in features=clip:FOLDER."
        ) from error
    network = network.float().eval().requires_grad_(False)
    preprocess = _transformers_preprocess(name, network.config.vision_config.image_size)

    def embed(images: Tensor) -> Float[Tensor, "batch dimensions"]:
        output = network.get_image_features(pixel_values=preprocess(images))
        # Before its fifth version, transformers returned the embeddings themselves.
        return F.normalize(output if isinstance(output, Tensor) else output.pooler_output, dim=-1)

    return embed, network


def _transformers_preprocess(name: str, size: int) -> Preprocess:
    """What the model's `preprocessor_config.json` asks for; CLIP's usual, where there is none."""
    path = user_path(name) / "preprocessor_config.json"
    if not path.parent.is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, path.name)
        path = Path(cached) if isinstance(cached, str) else path
    config = read_json(path) if path.is_file() else {}
    return Preprocess(
        size=size,
        mean=tuple(config.get("image_mean", CLIP_MEAN)),
        std=tuple(config.get("image_std", CLIP_STD)),
        floor=True,
    )
