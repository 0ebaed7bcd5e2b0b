"""Runs inside a reward's own environment: the original package, called as its own users call it.

    python originals.py weights PACKAGE FOLDER [--vocabulary FILE]
    python originals.py score PACKAGE FOLDER INPUTS OUTPUT [--vocabulary FILE]

`weights` makes a checkpoint with random weights, in the published format, by the package's own classes. `score` scores
pictures by the package's own path from Pillow images, and differentiates by its training path through tensors. Nothing
of the toolkit is imported.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MED_CONFIG = {
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
    "num_hidden_layers": 12, "pad_token_id": 0, "add_type_embeddings": False, "vocab_size": 30524,
    "encoder_width": 768, "add_cross_attention": True,
}  # fmt: skip

Scored = tuple[Callable[[Image.Image, str], float], Callable[[Tensor, str], Tensor]]
"""A picture and a prompt to a score; images `(1, 3, H, W)` and a prompt to a differentiable score."""


def make_wide(module: torch.nn.Module) -> None:
    """Weights of a head as large as its inputs ask for; the package's own start at almost 0, and so would scores."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.normal_(0, layer.in_features**-0.5)


def find_vocabulary(file: str | None) -> None:
    """Let transformers take BERT's vocabulary from a file, for want of a hub."""
    from transformers import BertTokenizer

    if file is not None:
        BertTokenizer.from_pretrained = classmethod(lambda cls, *words, **options: cls(file))


def image_reward_weights(folder: Path) -> None:
    from ImageReward.ImageReward import ImageReward

    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG))
    model = ImageReward(med_config=str(folder / "med_config.json"))
    make_wide(model.mlp)
    torch.save(model.state_dict(), folder / "ImageReward.pt")


def image_reward(folder: Path) -> Scored:
    import ImageReward

    model = ImageReward.load(str(folder / "ImageReward.pt"), "cpu", med_config=str(folder / "med_config.json"))
    # What the package's ReFL puts images through before score_gard.
    prepare = Compose([Resize(224, interpolation=InterpolationMode.BICUBIC), CenterCrop(224), Normalize(MEAN, STD)])

    def differentiable(images: Tensor, prompt: str) -> Tensor:
        words = model.blip.tokenizer(prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
        return model.score_gard(words.input_ids, words.attention_mask, prepare(images))[:, 0]

    return lambda picture, prompt: float(model.score(prompt, picture)), differentiable


def build_hps() -> tuple[Any, Any]:
    """The package's model and preprocessing, as `hpsv2.img_score.initialize_model` builds them, less the download of
    LAION's weights, which the checkpoint replaces."""
    from hpsv2.src.open_clip import create_model_and_transforms

    model, _, prepare = create_model_and_transforms(
        "ViT-H-14", None, precision="amp", device="cpu", jit=False, force_quick_gelu=False, force_custom_text=False,
        force_patch_dropout=False, force_image_size=None, pretrained_image=False, image_mean=None, image_std=None,
        light_augmentation=True, aug_cfg={}, output_dict=True, with_score_predictor=False, with_region_predictor=False,
    )  # fmt: skip
    return model, prepare


def hpsv2_weights(folder: Path) -> None:
    model, _ = build_hps()
    torch.save({"state_dict": model.state_dict()}, folder / "HPS_v2.1_compressed.pt")


def hpsv2(folder: Path) -> Scored:
    from hpsv2 import img_score
    from hpsv2.src.open_clip import get_tokenizer

    model, prepare = build_hps()
    img_score.model_dict.update(model=model, preprocess_val=prepare)
    checkpoint = str(folder / "HPS_v2.1_compressed.pt")
    model.load_state_dict(torch.load(checkpoint, map_location="cpu")["state_dict"])
    loaded, load = {"state_dict": model.state_dict()}, torch.load
    tokenizer = get_tokenizer("ViT-H-14")
    model.eval()

    def score(picture: Image.Image, prompt: str) -> float:
        torch.load = lambda *words, **options: loaded  # the package reads its 4 GB again for every picture
        try:
            return float(img_score.score(picture, prompt, cp=checkpoint, hps_version="v2.1")[0])
        finally:
            torch.load = load

    after = Compose(prepare.transforms[2:])  # what follows the conversion to RGB and ToTensor
    assert [type(transform).__name__ for transform in prepare.transforms[1:3]] == ["ToTensor", "ResizeMaxSize"]

    def differentiable(images: Tensor, prompt: str) -> Tensor:
        output = model(after(images[0])[None], tokenizer([prompt]))
        return (output["image_features"] * output["text_features"]).sum(-1)

    return score, differentiable


PACKAGES = {"image-reward": (image_reward_weights, image_reward), "hpsv2": (hpsv2_weights, hpsv2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["weights", "score"])
    parser.add_argument("package", choices=sorted(PACKAGES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("inputs", type=Path, nargs="?")
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--vocabulary")
    words = parser.parse_args()
    find_vocabulary(words.vocabulary)
    weights, package = PACKAGES[words.package]
    if words.what == "weights":
        torch.manual_seed(0)
        weights(words.folder)
        return
    score, differentiable = package(words.folder)
    prompts = json.loads((words.inputs / "prompts.json").read_text())
    images = load_file(words.inputs / "images.safetensors")
    rows: dict[str, Tensor] = {}
    for index, prompt in enumerate(prompts):
        image = images[str(index)]
        picture = Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())
        with torch.no_grad():
            rows[f"score/{index}"] = torch.tensor(score(picture, prompt))
        image.requires_grad_(True)
        value = differentiable(image, prompt)
        (gradient,) = torch.autograd.grad(value.sum(), image)
        rows[f"training/{index}"], rows[f"gradient/{index}"] = value.detach()[0], gradient
        print(f"{words.package}: {index + 1} of {len(prompts)}", flush=True)
    save_file(rows, words.output)


if __name__ == "__main__":
    main()
