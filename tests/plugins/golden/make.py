"""Makes the golden numbers beside this file with the original packages; run by an interpreter that has them:

    $DIPP_CACHE/environments/image-reward/bin/python tests/plugins/golden/make.py imagereward
    $DIPP_CACHE/environments/hpsv2/bin/python tests/plugins/golden/make.py hps

Small networks of the packages' own classes get weights by a formula, so that the tests can have the same ones on any
version of torch. What is kept is the names and shapes of the original checkpoint, scores, and parts of gradients.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).parent


def formula_weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Tensors that look like random weights, by whole numbers alone: scaled by the fan-in; norms around 1."""
    found = {}
    for index, (name, shape) in enumerate(sorted(shapes.items())):
        count = int(torch.tensor(shape).prod()) if shape else 1
        mixed = (torch.arange(count) * 374761393 + (index + 1) * 668265263) % 2**31
        mixed = ((mixed ^ (mixed >> 13)) * 1274126177) % 2**31
        noise = ((mixed ^ (mixed >> 16)) % 2**31).double() / 2**30 - 1
        is_norm = name.endswith("weight") and len(shape) == 1
        scale = 0.2 if len(shape) < 2 else 1.5 * (count / shape[0]) ** -0.5
        found[name] = ((1 + 0.1 * noise) if is_norm else scale * noise).float().reshape(shape)
    return found


def formula_images(size: int) -> Tensor:
    """Two smooth pictures, `(2, 3, size, size)` in [0, 1]."""
    down, across = torch.meshgrid(torch.arange(size) / size, torch.arange(size) / size, indexing="ij")
    waves = [torch.sin(6 * down * (k + 1) + 4 * across + k) for k in range(6)]
    return (0.5 + 0.5 * torch.stack(waves)).reshape(2, 3, size, size)


def golden(model: torch.nn.Module, shapes: dict[str, list[int]], images: Tensor, scores: Tensor) -> dict[str, object]:
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    return {
        "shapes": shapes,
        "scores": scores.tolist(),
        "gradient_norm": gradient.flatten(1).norm(dim=1).tolist(),
        "gradient": gradient[:, :, ::17, ::13].flatten().tolist(),
    }


def imagereward() -> dict[str, object]:
    """ImageReward's ViT and BERT, one layer each, on normalised pixels and token ids."""
    from ImageReward.ImageReward import MLP
    from ImageReward.models.BLIP.med import BertConfig, BertModel
    from ImageReward.models.BLIP.vit import VisionTransformer

    class Blip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual_encoder = VisionTransformer(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2)
            config = BertConfig(
                vocab_size=100, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
                layer_norm_eps=1e-12, add_cross_attention=True,
            )  # fmt: skip
            config.encoder_width, config.add_type_embeddings = 32, False
            self.text_encoder = BertModel(config=config, add_pooling_layer=False)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blip, self.mlp = Blip(), MLP(24)

    model = Whole().eval()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items() if value.is_floating_point()}
    model.load_state_dict(formula_weights(shapes), strict=False)
    images = formula_images(64).requires_grad_(True)
    ids = torch.tensor([[2, 17, 5, 99, 3, 0, 0], [2, 8, 8, 41, 60, 77, 3]])
    mask = (ids != 0).long()
    seen = model.blip.visual_encoder(images)
    read = model.blip.text_encoder(
        ids, attention_mask=mask, encoder_hidden_states=seen, return_dict=True,
        encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long),
    ).last_hidden_state  # fmt: skip
    return golden(model, shapes, images, model.mlp(read[:, 0])[:, 0]) | {"ids": ids.tolist()}


def hps() -> dict[str, object]:
    """The package's own CLIP class, small, on normalised pixels and token ids."""
    from hpsv2.src.open_clip.model import CLIP

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 56, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
    }
    model = CLIP(**config, output_dict=True).eval()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(formula_weights(shapes))
    images = formula_images(56).requires_grad_(True)
    ids = torch.zeros(2, 77, dtype=torch.long)
    ids[0, :4], ids[1, :6] = torch.tensor([49406, 320, 736, 49407]), torch.tensor([49406, 5, 9, 4000, 31, 49407])
    found = model(images, ids)
    scores = (found["image_features"] * found["text_features"]).sum(-1)
    return golden(model, shapes, images, scores) | {"config": config, "ids": ids[:, :6].tolist()}


if __name__ == "__main__":
    name = sys.argv[1]
    made = {"imagereward": imagereward, "hps": hps}[name]()
    (HERE / f"{name}.json").write_text(json.dumps(made) + "\n")
    print(name, made["scores"], made["gradient_norm"])
