"""Runs inside the environment `deqa`: the original package's model, called without the toolkit.

    python original.py weights FOLDER
    python original.py score FOLDER INPUTS OUTPUT

`weights` makes a tiny mPLUG-Owl2 with random weights and its tokenizer, in the layout of zhiyuanyou/DeQA-Score-Mix3.
`score` scores pictures by the steps of the package's `Scorer`, in float32. Nothing of the toolkit is imported.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPImageProcessor, LlamaTokenizer

SIDE = 56
QUESTION = "USER: How would you rate the quality of this image?\n<|image|>\nASSISTANT: The quality of the image is"
LEVELS = ("excellent", "good", "fair", "poor", "bad")


def write_weights(folder: Path) -> None:
    """Configuration, weights in float16, tokenizer and image processor."""
    import sentencepiece
    from src.model import MPLUGOwl2Config, MPLUGOwl2LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([QUESTION, *LEVELS * 9] * 9), model_prefix=str(folder / "tokenizer"), vocab_size=60,
        model_type="word", hard_vocab_limit=False, minloglevel=2, num_threads=1,
    )  # fmt: skip
    LlamaTokenizer(str(folder / "tokenizer.model"), legacy=True).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=square).save_pretrained(folder)
    torch.manual_seed(0)
    visual = {
        "visual_model": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SIDE, "patch_size": 14,
        },
        "visual_abstractor": {
            "num_learnable_queries": 4, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 64, "encoder_hidden_size": 32, "grid_size": 4,
        },
    }  # fmt: skip
    config = MPLUGOwl2Config(
        vocab_size=60, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        visual_config=visual,
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = MPLUGOwl2LlamaForCausalLM(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(0, weights.shape[-1] ** -0.5)
    model.half().save_pretrained(folder)


def score(folder: Path, inputs: Path, output: Path) -> None:
    """Scores of pictures."""
    from src.constants import IMAGE_TOKEN_INDEX
    from src.mm_utils import expand2square, tokenizer_image_token
    from src.model import MPLUGOwl2LlamaForCausalLM

    place = str(folder)
    model: Any = MPLUGOwl2LlamaForCausalLM.from_pretrained(place, attn_implementation="eager").float().eval()
    tokenizer = AutoTokenizer.from_pretrained(place, use_fast=False)
    processor = CLIPImageProcessor.from_pretrained(place)
    question = tokenizer_image_token(QUESTION, tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")[None]
    levels = [ids[1] for ids in tokenizer(list(LEVELS))["input_ids"]]
    assert len(set(levels)) == len(levels), levels
    colour = tuple(int(channel * 255) for channel in processor.image_mean)
    pictures = [
        expand2square(Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()), colour)
        for image in load_file(inputs)["images"]
    ]
    pixels = processor.preprocess(pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        logits = model(input_ids=question.repeat(len(pixels), 1), images=pixels)["logits"][:, -1, levels]
        scores = logits.softmax(-1) @ torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    save_file({"scores": scores.clone()}, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["weights", "score"])
    parser.add_argument("paths", type=Path, nargs="+")
    words = parser.parse_args()
    {"weights": write_weights, "score": score}[words.what](*words.paths)


if __name__ == "__main__":
    main()
