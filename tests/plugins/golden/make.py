"""Makes the golden numbers beside this file with the original packages; run by an interpreter that has them:

    $DIPP_CACHE/environments/image-reward/bin/python tests/plugins/golden/make.py imagereward
    $DIPP_CACHE/environments/hpsv2/bin/python tests/plugins/golden/make.py hps
    pip install --no-deps cyclereward==0.1.7 fairscale==0.4.13 timm==0.6.13 transformers==4.45.2 tokenizers==0.20.3
    python tests/plugins/golden/make.py cyclereward
    pip install --no-deps imscore==0.0.11 einops transformers==4.45.2 tokenizers==0.20.3
    python tests/plugins/golden/make.py mps
    pip install --no-deps t2v_metrics==3.0 transformers==4.45.2 tokenizers==0.20.3 sentencepiece opencv-python-headless
    python tests/plugins/golden/make.py vqascore
    python tests/plugins/golden/make.py t5_words

Small networks of the packages' own classes get weights by a formula, so that the tests can have the same ones on any
version of torch. What is kept is the names and shapes of the original checkpoint, scores, and parts of gradients.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import types
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


def blip_reward(vit: type, bert: type, config_class: type, head: type) -> dict[str, object]:
    """A BLIP of two layers and a head, of an original's own classes, on normalised pixels and token ids."""

    class Blip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual_encoder = vit(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2)
            config = config_class(
                vocab_size=100, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
                layer_norm_eps=1e-12, add_cross_attention=True,
            )  # fmt: skip
            config.encoder_width, config.add_type_embeddings = 32, False
            self.text_encoder = bert(config=config, add_pooling_layer=False)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blip, self.mlp = Blip(), head(24)

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


def imagereward() -> dict[str, object]:
    """ImageReward's own classes."""
    from ImageReward.ImageReward import MLP
    from ImageReward.models.BLIP.med import BertConfig, BertModel
    from ImageReward.models.BLIP.vit import VisionTransformer

    return blip_reward(VisionTransformer, BertModel, BertConfig, MLP)


def cyclereward() -> dict[str, object]:
    """CycleReward's own classes; its head differs from ImageReward's."""
    from cyclereward.blip.med import BertConfig, BertModel
    from cyclereward.blip.vit import VisionTransformer
    from cyclereward.model import MLP

    return blip_reward(VisionTransformer, BertModel, BertConfig, MLP)


def mps() -> dict[str, object]:
    """MPS by imscore's copy of the original's classes, which differs from it in one line that casts a mask.

    The original divides by the largest similarity of a whole batch; pairs go one at a time, as in its evaluation.
    """
    from imscore.mps import model as package
    from transformers import CLIPConfig

    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu"}
    text = {**tower, "hidden_size": 24, "intermediate_size": 48, "vocab_size": 49408, "eos_token_id": 2}
    vision = {**tower, "hidden_size": 32, "intermediate_size": 64, "patch_size": 14, "image_size": 56}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = package.XCLIPModel(config)
            self.cross_model = package.CrossModel(dim=16, layer_num=2, heads=2, dim_head=8)

    model = Whole().eval()
    shapes = {name: list(value.shape) for name, value in model.named_parameters()}
    model.load_state_dict(formula_weights(shapes), strict=False)
    images = formula_images(56).requires_grad_(True)
    ids = torch.full((3, 77), 49407)
    ids[0, :3], ids[1, :5] = torch.tensor([49406, 320, 736]), torch.tensor([49406, 5, 9, 4000, 31])
    ids[2, :4] = torch.tensor([49406, 1000, 267, 3225])
    condition, _ = model.model.get_text_features(ids[2:])
    scores: dict[float, list[Tensor]] = {0.3: [], 0.01: []}
    kept = []
    for index in range(2):
        tokens, end = model.model.get_text_features(ids[index : index + 1])
        seen = model.model.get_image_features(images[index : index + 1])
        similar = torch.einsum("bid,bjd->bji", tokens, condition).amax(1, keepdim=True)
        similar = similar / similar.max()
        kept.append(int((similar > 0.3).sum()))
        for threshold, rows in scores.items():
            mask = torch.where(similar > threshold, 0.0, float("-inf"))
            image = model.cross_model(seen, tokens, mask.repeat(1, seen.shape[1], 1))[:, 0]
            cosine = torch.nn.functional.cosine_similarity(image, end)
            rows.append(model.model.logit_scale.exp() * cosine[0])
    made = golden(model, shapes, images, torch.stack(scores[0.3]))
    return made | {
        "loose_scores": torch.stack(scores[0.01]).tolist(), "kept": kept, "ids": ids[:, :6].tolist(),
        "text": text, "vision": vision,
    }  # fmt: skip


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


def clip_t5_classes() -> tuple[types.ModuleType, types.ModuleType]:
    """t2v_metrics' modules of CLIP-FlanT5 alone: importing the package would import twenty other models with it."""
    place = importlib.util.find_spec("t2v_metrics").submodule_search_locations[0]
    for name in ("", ".models", ".models.vqascore_models"):
        package = types.ModuleType(f"t2v_metrics{name}")
        package.__path__ = [place + name.replace(".", "/")]
        sys.modules[package.__name__] = package
    base = "t2v_metrics.models.vqascore_models"
    tower = importlib.import_module(f"{base}.clip_t5.model.multimodal_encoder.clip_encoder")
    return importlib.import_module(f"{base}.clip_t5.model.language_model.clip_t5"), tower


def vqascore() -> dict[str, object]:
    """CLIP-FlanT5 by the classes of `t2v_metrics`, whose image tower is freed of its `no_grad`."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    language, encoder = clip_t5_classes()
    encoder.CLIPVisionTower.forward = encoder.CLIPVisionTower.forward.__wrapped__
    text = {
        "vocab_size": 120,
        "d_model": 32,
        "d_kv": 64,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=1, patch_size=14,
                image_size=56,
            )
        ).save_pretrained(folder)  # fmt: skip
        CLIPImageProcessor().save_pretrained(folder)
        arguments = {"mm_vision_select_layer": -2, "mm_hidden_size": 64, "mm_projector_type": "mlp2x_gelu"}
        config = language.CLIPT5Config(
            **text, **arguments, feed_forward_proj="gated-gelu", tie_word_embeddings=False, mm_vision_tower=folder
        )
        model = language.CLIPT5ForConditionalGeneration(config).eval()
    shapes = {name: list(value.shape) for name, value in model.named_parameters()}
    model.load_state_dict(formula_weights(shapes), strict=False)
    images = formula_images(56).requires_grad_(True)
    before, answer = [5, 9, 14, 1], [50, 1]
    after = [[7, 3, 22, 1, 0, 0], [8, 30, 41, 17, 2, 1]]
    ids, labels = torch.tensor([[*before, -200, *row] for row in after]), torch.tensor([answer] * 2)
    logits = model(
        input_ids=ids, attention_mask=ids != 0, decoder_attention_mask=labels != -100, labels=labels, images=images
    ).logits
    loss = torch.nn.CrossEntropyLoss(reduction="mean")
    scores = torch.stack([(-loss(rows, label)).exp() for rows, label in zip(logits, labels, strict=True)])
    return golden(model, shapes, images, scores) | {"before": before, "after": after, "answer": answer}


def t5_words() -> dict[str, object]:
    """A small SentencePiece model in the format of T5's tokenizer.json, and what SentencePiece reads itself."""
    import sentencepiece
    from transformers import T5TokenizerFast

    asked = [
        'Does this figure show "{prompt}"? Please answer yes or no. ASSISTANT: ',
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: ",
    ]
    prompts = ["a red cat on a mat", "two  blanks\tand a tab", " the end ", "", "\u3000wide \U0001f600"]
    with tempfile.TemporaryDirectory() as folder:
        rules, prefix = Path(folder) / "rules.tsv", f"{folder}/spiece"
        rules.write_text("9\t20\nA\t20\n3000\t20\n")  # of the published model's rules, those for blanks
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*asked, *prompts[:1], "Yes"] * 20), model_prefix=prefix, vocab_size=76, pad_id=0,
            eos_id=1, unk_id=2, bos_id=-1, normalization_rule_tsv=str(rules), num_threads=1, minloglevel=2,
        )  # fmt: skip
        T5TokenizerFast(f"{prefix}.model", extra_ids=0, legacy=True).save_pretrained(folder)
        words = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
        texts = ["\n" + asked[0].replace("{prompt}", prompt) for prompt in prompts]
        return {
            "tokenizer": json.loads((Path(folder) / "tokenizer.json").read_text()),
            "prompts": prompts,
            "ids": [[*words.encode(text), 1] for text in texts],
            "before": [*words.encode(asked[1]), 1],
            "answer": [*words.encode("Yes"), 1],
        }


MAKERS = {
    "imagereward": imagereward, "cyclereward": cyclereward, "hps": hps, "mps": mps, "vqascore": vqascore,
    "t5_words": t5_words,
}  # fmt: skip


if __name__ == "__main__":
    name = sys.argv[1]
    made = MAKERS[name]()
    (HERE / f"{name}.json").write_text(json.dumps(made) + "\n")
    print(name, made.get("scores"), made.get("gradient_norm"))
