"""HPSv3 by its own package, for which a module with the same interface stands in: no weights, no environment."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dipp_hpsv3.original import OriginalHPSv3, load
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.estimators.smoothing import Smoothing
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.rewards.isolated import environments
from dipp_toolkit.rewards.loading import load_reward

PACKAGE = '''
import numpy as np
import torch
from torch import nn


class Model(nn.Module):
    """A body in bfloat16 where it is told so, and a head in float32, as the package's."""

    def __init__(self, dtype):
        super().__init__()
        self.body = nn.Linear(4, 3).to(dtype)
        self.rm_head = nn.Linear(3, 2, bias=False)
        self.drop = nn.Dropout(0.5)
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weights in self.parameters():
                weights.copy_(torch.randn(weights.shape, generator=random))

    def forward(self, features):
        return {"logits": self.rm_head(self.drop(self.body(features.to(self.body.weight.dtype))))}


class HPSv3RewardInferencer:
    def __init__(self, config_path=None, checkpoint_path=None, device="cuda", differentiable=False):
        assert device == "cpu" and differentiable
        self.paths, self.device = (config_path, checkpoint_path), device
        self.model = Model(torch.bfloat16 if "narrow" in str(config_path) else torch.float32)

    def reward(self, image_paths, prompts):
        rows = []
        for image, prompt in zip(image_paths, prompts, strict=True):
            if isinstance(image, torch.Tensor):
                assert image.ndim == 3 and image.shape[0] == 3
                mean = (image / 255).square().mean((1, 2))
            else:
                mean = torch.from_numpy(np.asarray(image).astype("float32") / 255).square().mean((0, 1))
            rows.append(torch.cat([mean, torch.full_like(mean[:1], len(prompt) / 10)]))
        return self.model(torch.stack(rows).to(self.device))["logits"]
'''
PROMPTS = ["a cat", "a small red cat"]
IMAGES = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(2)).mul(255).round().div(255)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The stand-in, under the package's name."""
    module = types.ModuleType("hpsv3")
    exec(PACKAGE, module.__dict__)
    monkeypatch.setitem(sys.modules, "hpsv3", module)
    return module


def scores_and_gradient(reward: OriginalHPSv3, images: Tensor) -> tuple[Tensor, Tensor]:
    leaf = images.clone().requires_grad_(True)
    scores = reward(leaf, PROMPTS)
    return scores.detach(), torch.autograd.grad(scores.sum(), leaf)[0]


def outputs_by_hand(reward: OriginalHPSv3, images: Tensor) -> Tensor:
    model = reward.inferencer.model
    lengths = torch.tensor([[len(prompt) / 10] for prompt in PROMPTS], dtype=images.dtype)
    features = torch.cat([images.square().mean((2, 3)), lengths], 1)
    return model.rm_head(model.body(features))


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("output", ["mu", "sigma"])
def test_scores_and_gradients_are_the_packages(output: str) -> None:
    """The second output is the logarithm of a deviation, as the package's loss reads it."""
    reward = load(output=output)
    assert reward.differentiable is True and not reward.inferencer.model.training
    leaf = IMAGES.clone().requires_grad_(True)
    both = outputs_by_hand(reward, leaf)
    expected = both[:, 0] if output == "mu" else both[:, 1].exp()
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    scores, gradient = scores_and_gradient(reward, IMAGES)
    torch.testing.assert_close(scores, expected.detach())
    torch.testing.assert_close(gradient, slope)
    pictures = reward(IMAGES, PROMPTS)
    torch.testing.assert_close(pictures, expected.detach())
    assert pictures.dtype == torch.float32 and not pictures.requires_grad
    assert not any(weights.requires_grad for weights in reward.inferencer.model.parameters())


@pytest.mark.usefixtures("package")
def test_without_a_gradient_pictures_have_256_levels_unless_one_insists() -> None:
    between = (IMAGES + 0.3 / 255).clamp(0, 1)
    exact, rounded = (load(preprocess=way)(between, PROMPTS) for way in ("tensor", "auto"))
    torch.testing.assert_close(rounded, load(preprocess="pillow")(IMAGES, PROMPTS), rtol=0, atol=0)
    assert not torch.allclose(exact, rounded, rtol=0, atol=1e-5)
    torch.testing.assert_close(exact, scores_and_gradient(load(), between)[0], rtol=0, atol=0)
    box = load(preprocess="pillow")
    assert box.differentiable is False
    assert not box(between.clone().requires_grad_(True), PROMPTS).requires_grad


@pytest.mark.usefixtures("package")
def test_a_narrow_model_reaches_its_float32_head_without_cudas_autocast(tmp_path: Path) -> None:
    config, checkpoint = tmp_path / "narrow.yaml", tmp_path / "HPSv3.safetensors"
    config.write_text("torch_dtype: bfloat16\n")
    save_file({"weight": torch.zeros(1)}, checkpoint)
    reward = load(checkpoint=checkpoint, config=config)
    assert reward.inferencer.paths == (str(config), str(checkpoint))
    scores, gradient = scores_and_gradient(reward, IMAGES)
    wide = load()
    torch.testing.assert_close(scores, wide(IMAGES, PROMPTS), rtol=0, atol=0.05)
    assert scores.dtype == gradient.dtype == torch.float32
    expected = scores_and_gradient(wide, IMAGES)[1]
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 0.999
    assert reward.to("cpu") is reward and reward.inferencer.device == "cpu"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"output": "both"}, r"option output of the reward 'hpsv3' is 'both'; expected mu or sigma\.$"),
        ({"preprocess": "8bit"}, r"option preprocess .* is '8bit'; expected auto, pillow or tensor\.$"),
        ({"checkpoint": "gone.safetensors"}, r"option checkpoint .* names gone\.safetensors, which is not a file"),
        ({"config": "gone.yaml"}, r"option config .* names gone\.yaml, which is not a file"),
    ],
)
@pytest.mark.usefixtures("package")
def test_wrong_options_are_sentences(
    options: dict[str, str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=sentence):
        load(**options)


def test_a_training_gets_its_gradient_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By both names, so that a run can train with the score and watch its deviation."""
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path))
    folder = environments.default_folder() / "hpsv3"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (folder / environments.MARKER).write_text(json.dumps({"python": environments.PYTHON, "requirements": []}))
    (environments.packages_of(folder) / "hpsv3.py").write_text(PACKAGE)
    reward: Any = load_reward("hpsv3@isolated")
    deviation: Any = load_reward("hpsv3@hpsv3", output="sigma")
    here = types.ModuleType("hpsv3")
    exec(PACKAGE, here.__dict__)
    original = OriginalHPSv3(here.HPSv3RewardInferencer(device="cpu", differentiable=True))
    scores, gradient = scores_and_gradient(original, IMAGES)
    term = RewardTerm("hpsv3@isolated", reward, lambda latents: latents, estimator=Smoothing())
    result = term(Sample(IMAGES, Condition(tuple(PROMPTS), {}), IMAGES, torch.Generator()))
    assert reward.differentiable is True and term.black_box is False
    mean, deviation_here = outputs_by_hand(original, IMAGES).detach().unbind(1)
    said = {name: float(value) for name, value in result.details.items()}
    assert said == pytest.approx({"mu": mean.mean().item(), "sigma": deviation_here.exp().mean().item()}, rel=1e-5)
    torch.testing.assert_close(result.value, scores, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(-result.grad, gradient, rtol=1e-6, atol=1e-9)
    sigma = outputs_by_hand(original, IMAGES)[:, 1].exp().detach()
    torch.testing.assert_close(deviation(IMAGES, PROMPTS), sigma)
    assert reward.identity() != deviation.identity()
    for proxy in (reward, deviation):
        proxy.close()
