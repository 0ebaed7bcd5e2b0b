"""Small random PickScore, CLIP and aesthetic models in the published layouts, and what the libraries say of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dipp_toolkit import Reward, load_reward

MODEL = "tiny-parity"
CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
PROMPTS = ["a red cat, 😀 on a mat", "Unbelievable! naïve café", "x " * 4000, ""]

Theirs = tuple[Callable[[Tensor, str], Tensor], Callable[[Tensor, str], Tensor]]
"""Scores of 8-bit pictures `(1, 3, H, W)` by the library's own way, and by its tensors with a gradient."""


def picture_of(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())


def write_pickscore(folder: Path) -> None:
    """A folder in the layout of yuvalkirstain/PickScore_v1, CLIP's tokenizer in it."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "hidden_act": "gelu", "vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406}
    vision = {**tower, "hidden_act": "gelu", "patch_size": 32, "image_size": 224}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)).save_pretrained(folder)
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer in transformers' layout, out of open_clip's vocabulary."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    words = SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(word, word): index for word, index in words.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in words.bpe_ranks)]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77).save_pretrained(folder)


def pickscore(folder: Path) -> tuple[Reward, Theirs]:
    """The model card's own lines: processor, features, logit scale."""
    from torchvision.transforms.v2 import functional as T
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip import CLIPImageProcessorPil

    if not (folder / "config.json").is_file():
        write_pickscore(folder)
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessorPil()

    def logits(pixels: Tensor, prompt: str) -> Tensor:
        ids = tokenizer([prompt], padding=True, truncation=True, max_length=77, return_tensors="pt")
        scores: Tensor = model(pixel_values=pixels, **ids).logits_per_image[:, 0]
        return scores

    def by_tensors(image: Tensor, prompt: str) -> Tensor:
        resized = T.resize(image, [224], T.InterpolationMode.BICUBIC, antialias=True)
        down, across = (resized.shape[-2] - 224) // 2, (resized.shape[-1] - 224) // 2  # as the processor crops
        small = resized[..., down : down + 224, across : across + 224]
        return logits(T.normalize(small, processor.image_mean, processor.image_std), prompt)

    def by_pictures(image: Tensor, prompt: str) -> Tensor:
        return logits(processor(picture_of(image), return_tensors="pt").pixel_values, prompt)

    return load_reward("pickscore", checkpoint=str(folder)), (by_pictures, by_tensors)


def write_clip(folder: Path) -> Path:
    """A small CLIP's weights as open_clip saves them, known to open_clip by the name `tiny-parity`."""
    import open_clip

    (folder / f"{MODEL}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{MODEL}.json")
    path = folder / "clip.pt"
    if not path.is_file():
        torch.manual_seed(1)
        torch.save(open_clip.create_model(MODEL).state_dict(), path)
    return path


def clip_and_its_ways(path: Path) -> tuple[Any, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """open_clip's model and transform, the latter on pictures and on tensors."""
    import open_clip
    from torchvision.transforms import Compose

    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(path))
    resize, crop, _, _, normalise = transform.transforms
    return model.eval(), lambda image: transform(picture_of(image))[None], Compose([resize, crop, normalise])


def clip(folder: Path) -> tuple[Reward, Theirs]:
    """open_clip's own transform and forward pass."""
    import open_clip

    path = write_clip(folder)
    model, by_pictures, by_tensors = clip_and_its_ways(path)
    tokenizer = open_clip.get_tokenizer(MODEL)

    def score(pixels: Tensor, prompt: str) -> Tensor:
        image, text, _ = model(pixels, tokenizer([prompt]))
        return (image * text).sum(-1)

    ways = (
        lambda image, prompt: score(by_pictures(image), prompt),
        lambda image, prompt: score(by_tensors(image), prompt),
    )
    return load_reward("clip", model=MODEL, pretrained=str(path)), ways


def aesthetic(folder: Path) -> tuple[Reward, Theirs]:
    """The original's head: five linear layers with dropout between, on the normalised feature of CLIP's image tower."""
    path = write_clip(folder)
    model, by_pictures, by_tensors = clip_and_its_ways(path)
    torch.manual_seed(2)
    head = nn.Sequential(
        nn.Linear(64, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64),
        nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
    )  # fmt: skip
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    torch.save({f"layers.{name}": tensor for name, tensor in head.state_dict().items()}, folder / "head.pth")
    head.eval()

    def score(pixels: Tensor) -> Tensor:
        features = model.encode_image(pixels)
        return head(features / features.norm(dim=-1, keepdim=True))[:, 0]

    ways = (lambda image, prompt: score(by_pictures(image)), lambda image, prompt: score(by_tensors(image)))
    reward = load_reward("aesthetic", checkpoint=str(folder / "head.pth"), model=MODEL, pretrained=str(path))
    return reward, ways


MODELS = {
    "pickscore": (pickscore, "port with transformers' CLIPModel and processor"),
    "clip": (clip, "port with open_clip"),
    "aesthetic": (aesthetic, "port with open_clip and the original's head"),
}


def small_pictures(count: int) -> list[Tensor]:
    """8-bit pictures of odd sizes, `(1, 3, H, W)`, smooth with some noise."""
    dice = np.random.default_rng(3)
    pictures = []
    for _ in range(count):
        height, width = (int(side) | 1 for side in dice.integers(120, 600, 2))
        coarse = Image.fromarray(dice.integers(0, 256, (height // 9, width // 9, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        pictures.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)
    return pictures


def answers(
    call: Callable[[Tensor, str], Tensor], training: Callable[[Tensor, str], Tensor], count: int
) -> dict[str, Tensor]:
    """Scores, scores of the path that trains, and gradients, of `count` pictures."""
    rows = {}
    for index, image in enumerate(small_pictures(count)):
        prompt = PROMPTS[index % len(PROMPTS)]
        with torch.no_grad():
            rows[f"score/{index}"] = call(image, prompt)[0]
        image.requires_grad_(True)
        value = training(image, prompt)
        (gradient,) = torch.autograd.grad(value.sum(), image)
        rows[f"training/{index}"], rows[f"gradient/{index}"] = value.detach()[0], gradient
    return rows


def small_rows(folder: Path, count: int, compare: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """All small comparisons."""
    rows = []
    for name, (build, what) in MODELS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        reward, (by_pictures, by_tensors) = build(folder / name)
        ours = answers(
            lambda image, prompt, r=reward: r(image, [prompt]),
            lambda image, prompt, r=reward: r(image, [prompt]),
            count,
        )
        rows.append(compare(name, what, ours, answers(by_pictures, by_tensors, count)))
    return rows
