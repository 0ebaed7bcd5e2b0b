"""Runs inside the environment `hpsv3`: the original package, called as its own users call it.

    python original.py weights FOLDER
    python original.py measure FOLDER INPUTS OUTPUT

`weights` makes a tiny Qwen2-VL with random weights and a checkpoint of the package's model on top of it, each in the
published format. `measure` scores pictures and tensors and differentiates, by autograd and by central differences.
Nothing of the toolkit is imported.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

STEPS = (0.002, 0.0005)
"""Of central differences, in root-mean-square pixels: the larger meets more curvature, the smaller more rounding."""
DIRECTIONS = 16
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2-VL's own template, without the system's message and without videos."""


def write_processor(folder: Path) -> Any:
    """Qwen2-VL's processor, with a byte-level vocabulary learned from the package's own instruction."""
    from hpsv3.dataset.data_collator_qwen import INSTRUCTION, prompt_with_special_token
    from tokenizers import ByteLevelBPETokenizer
    from transformers import Qwen2TokenizerFast, Qwen2VLImageProcessor, Qwen2VLProcessor

    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator([INSTRUCTION + prompt_with_special_token], vocab_size=700, min_frequency=1)
    learned.save_model(str(folder))
    tokenizer = Qwen2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    processor = Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, chat_template=CHAT)
    processor.save_pretrained(folder)
    return processor.tokenizer


def write_weights(folder: Path) -> None:
    """A folder `qwen` as `Qwen/Qwen2-VL-7B-Instruct` is one, `HPSv3.safetensors`, and configurations of both widths."""
    import hpsv3
    import yaml
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    qwen = folder / "qwen"
    qwen.mkdir(parents=True, exist_ok=True)
    tokenizer = write_processor(qwen)
    numbers = {word: tokenizer.convert_tokens_to_ids(word) for word in SPECIAL}
    config = Qwen2VLConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, rope_theta=1e6, tie_word_embeddings=False,
        rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]},
        vision_config={
            "depth": 3, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 4, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
        },
        vision_start_token_id=numbers["<|vision_start|>"], vision_end_token_id=numbers["<|vision_end|>"],
        vision_token_id=numbers["<|vision_pad|>"], image_token_id=numbers["<|image_pad|>"],
        video_token_id=numbers["<|video_pad|>"], bos_token_id=numbers["<|endoftext|>"],
        eos_token_id=numbers["<|im_end|>"],
    )  # fmt: skip
    Qwen2VLForConditionalGeneration(config).save_pretrained(qwen)
    published = yaml.safe_load((Path(hpsv3.__file__).parent / "config" / "HPSv3_7B.yaml").read_text())
    for width, narrow in (("float32", False), ("bfloat16", True)):
        words = {**published, "model_name_or_path": str(qwen), "torch_dtype": width, "bf16": narrow}
        (folder / f"{width}.yaml").write_text(yaml.safe_dump(words))
    write_checkpoint(folder)


def write_checkpoint(folder: Path) -> None:
    """The state of the package's model, with weights as large as their inputs ask for: scores that move."""
    from hpsv3.train import create_model_and_processor
    from hpsv3.utils.parser import DataConfig, ModelConfig, PEFTLoraConfig, TrainingConfig, parse_args_with_yaml

    kinds = (DataConfig, TrainingConfig, ModelConfig, PEFTLoraConfig)
    (_, training, model, lora), _ = parse_args_with_yaml(kinds, str(folder / "float32.yaml"), is_train=False)
    network, _, _ = create_model_and_processor(model, lora, training)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, (torch.nn.Linear, torch.nn.Conv3d)):
                layer.weight.normal_(0, math.prod(layer.weight.shape[1:]) ** -0.5)
            elif isinstance(layer, torch.nn.Embedding):
                layer.weight.normal_(0, 1)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "HPSv3.safetensors")


def load(folder: Path, width: str, differentiable: bool) -> Any:
    """The package's inferencer of these weights."""
    from hpsv3 import HPSv3RewardInferencer

    inferencer = HPSv3RewardInferencer(
        config_path=str(folder / f"{width}.yaml"),
        checkpoint_path=str(folder / "HPSv3.safetensors"),
        device="cpu",
        differentiable=differentiable,
    )
    inferencer.model.requires_grad_(False)
    return inferencer


def of_pictures(inferencer: Any, images: Tensor, prompts: list[str]) -> Tensor:
    """Both outputs `(B, 2)` of 8-bit pictures."""
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    with torch.no_grad():
        return inferencer.reward(image_paths=[Image.fromarray(picture) for picture in pixels], prompts=prompts)


def of_tensors(inferencer: Any, images: Tensor, prompts: list[str]) -> Tensor:
    """Both outputs `(B, 2)` of tensors, in the package's range of 0 to 255."""
    return inferencer.reward(image_paths=list(images * 255), prompts=prompts)


def directions(shape: tuple[int, ...]) -> Tensor:
    """`DIRECTIONS` for each image, of root-mean-square 1: half of them white noise, half smooth on a grid of 8²."""
    random = torch.Generator().manual_seed(1)
    white = torch.randn(DIRECTIONS // 2, *shape, generator=random)
    grid = torch.randn(DIRECTIONS // 2 * shape[0], 3, 8, 8, generator=random)
    smooth = F.interpolate(grid, size=shape[2:], mode="bicubic").reshape(-1, *shape)
    both = torch.cat([white, smooth])
    return both / both.square().mean((2, 3, 4), keepdim=True).sqrt()


@torch.no_grad()
def slopes(inferencer: Any, images: Tensor, prompts: list[str], along: Tensor, step: float) -> Tensor:
    """Central differences of `mu` and `sigma`, `(directions, 2, B)`, float64."""
    found = []
    for number, direction in enumerate(along):
        ends = [of_tensors(inferencer, images + sign * step * direction, prompts).double() for sign in (1, -1)]
        (mu, log_sigma), (mu_below, log_sigma_below) = (end.unbind(1) for end in ends)
        found.append(torch.stack([mu - mu_below, log_sigma.exp() - log_sigma_below.exp()]) / (2 * step))
        print(f"step {step:g}: direction {number + 1} of {len(along)}", flush=True)
    return torch.stack(found)


def measure(folder: Path, inputs: Path, output: Path) -> None:
    """Everything that the package alone says of the inputs."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    images = load_file(inputs / "images.safetensors")["images"]
    prompts = json.loads((inputs / "prompts.json").read_text())
    rows = {"plain": of_pictures(load(folder, "float32", differentiable=False), images, prompts)}
    inferencer = load(folder, "float32", differentiable=True)
    rows["pictures"] = of_pictures(inferencer, images, prompts)
    for name, column in (("mu", 0), ("sigma", 1)):
        leaf = images.clone().requires_grad_(True)
        both = of_tensors(inferencer, leaf, prompts)
        value = both[:, 0] if column == 0 else both[:, 1].exp()
        (rows[f"gradient/{name}"],) = torch.autograd.grad(value.sum(), leaf)
        rows["tensors"] = both.detach()
    alone = [of_tensors(inferencer, images[k : k + 1], prompts[k : k + 1]) for k in range(len(images))]
    rows["alone"] = torch.cat(alone).detach()
    rows["directions"] = directions(tuple(images.shape))
    rows["steps"] = torch.tensor(STEPS, dtype=torch.float64)
    rows["slopes"] = torch.stack([slopes(inferencer, images, prompts, rows["directions"], step) for step in STEPS])
    save_file({name: value.detach().contiguous() for name, value in rows.items()}, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["weights", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("inputs", type=Path, nargs="?")
    parser.add_argument("output", type=Path, nargs="?")
    words = parser.parse_args()
    if words.what == "weights":
        write_weights(words.folder)
    else:
        measure(words.folder, words.inputs, words.output)


if __name__ == "__main__":
    main()
