"""DeQA-Score by its own package, for which modules with the same interface stand in: no weights, no environment."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from dipp_deqa.original import LEVELS, QUESTION, OriginalDeQA, environment, load
from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.checks.run import check_reward
from dipp_toolkit.rewards.preprocess import Preprocess

WORDS = {word: 10 + index for index, word in enumerate(LEVELS)}
IMAGE, TOKENS = -200, 30
IMAGES = torch.rand(2, 3, 24, 17, generator=torch.Generator().manual_seed(2)).mul(255).round().div(255)
PROMPTS = ["a cat", "a small red cat"]


class Model(nn.Module):
    """Logits of every token after each; those after the last depend on the picture."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, TOKENS).to(dtype)
        self.drop, self.dtype = nn.Dropout(0.5), dtype
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weights in self.parameters():
                weights.copy_(torch.randn(weights.shape, generator=random) / 8)

    @classmethod
    def from_pretrained(cls, place: str, **options: Any) -> Model:
        if not (Path(place) / "config.json").is_file():
            raise OSError(f"{place} does not appear to have a file named config.json.\nMore of it.")
        assert options["attn_implementation"] == "eager"
        return cls(options["torch_dtype"])

    def forward(self, input_ids: Tensor, images: Tensor) -> dict[str, Tensor]:
        assert (input_ids == IMAGE).sum(dim=1).eq(1).all() and len(input_ids) == len(images)
        last = self.head(self.drop(images.flatten(1)))
        return {"logits": torch.stack([torch.full_like(last, 100.0), last], dim=1)}


class Tokenizer:
    def __call__(self, text: str) -> Any:
        return types.SimpleNamespace(input_ids=[1, WORDS.get(text, 9)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint's folder, the package under its own name, and what it loads beside the model."""

    def ids_of(text: str, tokenizer: Any, index: int, return_tensors: str) -> Tensor:
        assert text == QUESTION and isinstance(tokenizer, Tokenizer) and return_tensors == "pt"
        return torch.tensor([1, 5, index, 7])

    contents = {
        "src": {}, "src.constants": {"IMAGE_TOKEN_INDEX": IMAGE}, "src.mm_utils": {"tokenizer_image_token": ids_of},
        "src.model": {"MPLUGOwl2LlamaForCausalLM": Model},
    }  # fmt: skip
    for name, content in contents.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    processor = transformers.CLIPImageProcessor(crop_size={"height": 8, "width": 8})
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda _place, use_fast: Tokenizer())
    monkeypatch.setattr(transformers.CLIPImageProcessor, "from_pretrained", lambda _place: processor)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def by_hand(reward: OriginalDeQA, pixels: Tensor) -> Tensor:
    logits = reward.model.head(pixels.flatten(1))[:, 10:15]
    shares = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return 5 * shares[:, 0] + 4 * shares[:, 1] + 3 * shares[:, 2] + 2 * shares[:, 3] + shares[:, 4]


def test_a_score_is_the_mean_level(folder: Path) -> None:
    reward = load(folder, "fp32")
    assert reward.differentiable is True and not reward.model.training
    leaf = IMAGES.clone().requires_grad_(True)
    expected = by_hand(reward, Preprocess(8, "square")(leaf))
    scores = reward(leaf, PROMPTS)
    torch.testing.assert_close(scores, expected)
    (gradient,), (slope,) = (torch.autograd.grad(value.sum(), leaf) for value in (scores, expected))
    torch.testing.assert_close(gradient, slope)
    assert gradient.abs().max() > 0 and ((scores > 1) & (scores < 5)).all()
    pictures = reward(IMAGES, PROMPTS)
    torch.testing.assert_close(pictures, by_hand(reward, Preprocess(8, "square")(IMAGES)))
    assert pictures.dtype == torch.float32 and not pictures.requires_grad
    assert not any(weights.requires_grad for weights in reward.model.parameters())


def test_without_a_gradient_it_is_a_black_box(folder: Path) -> None:
    box = load(folder, "fp32", preprocess="pillow")
    assert box.differentiable is False
    assert not box(IMAGES.clone().requires_grad_(True), PROMPTS).requires_grad


def test_it_runs_in_the_originals_precision_and_gives_float32(folder: Path) -> None:
    half, wide = load(folder), load(folder, "fp32")
    assert half.model.dtype == torch.float16 and half(IMAGES, PROMPTS).dtype == torch.float32
    torch.testing.assert_close(half(IMAGES, PROMPTS), wide(IMAGES, PROMPTS), rtol=0, atol=0.01)
    assert half.to("cpu") is half


def test_the_check_of_rewards_finds_nothing(folder: Path) -> None:
    rows = check_reward(load(folder, "fp32", "tensor"), "deqa", seconds=0.001)
    assert [row for row in rows if row.status == "failed"] == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "fp8"}, r"option precision of the reward 'deqa' is 'fp8'; expected fp16, bf16 or fp32\.$"),
        ({"preprocess": "8bit"}, r"option preprocess .* is '8bit'; expected auto, pillow or tensor\.$"),
        ({"checkpoint": "./gone"}, r"names .*gone, which is not a folder.* hf download zhiyuanyou/DeQA-Score-Mix3"),
        ({"checkpoint": "empty"}, r"cannot be loaded: empty does not appear to have a file named config\.json\.$"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_options_are_sentences(
    options: dict[str, str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=sentence):
        load(**options)


def test_its_package_is_fetched_at_one_commit() -> None:
    (line,) = [line for line in environment().requirements if "github" in line]
    assert line.startswith("deqa-score @ https://github.com/zhiyuanyou/DeQA-Score/archive/") and line.endswith(".zip")
    assert len(line.removesuffix(".zip").rsplit("/", 1)[1]) == 40
