"""An assistant of somebody's own, named in the settings: the Gaussian world of the page, trained with the exact one."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.schedules import FlowMatching
from dipp_toolkit.errors import PluginError, RequestError
from dipp_toolkit.training.assistant import LearnedAssistant
from dipp_toolkit.training.run import train
from dipp_toolkit.verify import AffineGenerator, ExactAssistant, Gaussian, GaussianReference, gaussian_denoiser
from dipp_toolkit.verify.cases import make_reference

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "writing-a-plugin.md"

WRONG = """
def unfit(reference):
    return None

def partless(generator, reference):
    return generator

def blind(generator, reference):
    from dipp_toolkit.verify import AffineGenerator, ExactAssistant

    class Lawless(AffineGenerator):
        law = None

    return ExactAssistant.beside(Lawless(generator.network), reference)
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with `gaussian.py` of the page."""
    (block,) = re.findall(r"```python\n(# gaussian\.py\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "gaussian.py").write_text(block, encoding="utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    return tmp_path


def settings(world: Path, **others: Any) -> dict[str, Any]:
    file = world / "gaussian.py"
    return {
        "generator": f"{file}:generator", "reference": f"{file}:reference", "prompts": f"{file}:PROMPTS",
        "assistant_model": f"{file}:exact", "assistant_rounds": 1, "weighting": "dmd", "batch_size": 256, "steps": 60,
        "learning_rate": 0.06, "cooldown": 50, "ema": 0.0, "max_grad_norm": 1e6, "precision": "fp32", "device": "cpu",
        "eval_count": 1, "reference_steps": 1, "monitor_every": 0, "diagnose_every": 0, "out": world / "run", **others,
    }  # fmt: skip


def law_of(run: Path) -> Gaussian:
    return AffineGenerator.load_pretrained(run / "final").law


def test_a_run_with_the_exact_assistant_reaches_the_reference(world: Path) -> None:
    summary = train(make_config(settings(world))).summary
    reached, target = law_of(world / "run"), make_reference().given
    assert (reached.mean - target.mean).norm() < 0.02 * target.mean.norm()
    assert (reached.covariance - target.covariance).norm() < 0.05 * target.covariance.norm()
    assert summary["environment"]["assistant"].endswith("gaussian.py:exact")
    assert not any("assistant" in warning for warning in summary["warnings"])
    assert {file.name for file in (world / "run" / "final").iterdir()} == {"affine.safetensors", "generator.json"}
    begun = json.loads((world / "run" / "begun.json").read_text())
    assert any("assistant" in name for name in begun["contents"]), "its code is noted, so that a resumed run has it"


def test_a_resumed_run_has_the_same_bits(world: Path) -> None:
    whole = {"out": world / "whole", "steps": 4, "cooldown": 0}
    train(make_config(settings(world, **whole)))
    train(make_config(settings(world, **{**whole, "out": world / "parts", "steps": 2})))
    train(make_config(settings(world, **{**whole, "out": world / "parts"}, resume=True)))
    assert torch.equal(law_of(world / "whole").covariance, law_of(world / "parts").covariance)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exact", "names no Python file or module; expected file.py:Name"),
        ("./nowhere.py:exact", "There is no file nowhere.py for the assistant"),
        ("wrong.py:unfit", r"expected a function that can be called as assistant\(generator, reference\)"),
        ("wrong.py:partless", "without predict_x0, update, state_dict, load_state_dict"),
        ("wrong.py:blind", "whose law is known, with an attribute `law` that is a Gaussian; Lawless has none"),
    ],
)
def test_what_is_no_assistant_is_refused(world: Path, name: str, message: str) -> None:
    name = f"{world / name}" if name.startswith("wrong") else name
    with pytest.raises((RequestError, PluginError), match=message):
        train(make_config(settings(world, assistant_model=name)))
    assert not (world / "run" / "metrics.jsonl").exists()


def test_a_trainable_copy_of_the_gaussian_reference_learns_another_law() -> None:
    """What the default assistant is, on such a file."""
    reference, generator = make_any_time(), AffineGenerator.standard(0.6, (3, 1, 1))
    denoiser = reference.denoiser.trainable_copy()
    optimizer = torch.optim.Adam(denoiser.network.parameters(), lr=0.02)
    assistant = LearnedAssistant(denoiser, optimizer, max_grad_norm=math.inf)
    exact, random = ExactAssistant.beside(generator, reference), torch.Generator().manual_seed(0)
    condition = reference.encode(["a"] * 512)

    def gap() -> float:
        x_t = torch.randn(512, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        t = torch.linspace(0.1, 0.9, 512, dtype=torch.float64)
        both = (model.predict_x0(x_t, t, condition) for model in (assistant, exact))
        return (next(both) - next(both)).norm().item()

    before = gap()
    for _ in range(120):
        noise = torch.randn(512, 3, 1, 1, dtype=torch.float64, generator=random)
        assistant.update(generator.generate(noise, condition).detach(), condition, random)
    assert gap() < 0.1 * before


def make_any_time() -> GaussianReference:
    plain = make_reference()
    return GaussianReference(plain.empty, plain.given, FlowMatching(shift=3.0), prediction="velocity")


def test_a_schedule_without_known_network_times_is_refused() -> None:
    class Own:
        alpha = sigma = noise_rate = network_time = staticmethod(lambda t: t)

    law = make_reference().given
    with pytest.raises(RequestError, match=r"under a Own is not known\. Give gaussian_denoiser coefficients"):
        gaussian_denoiser(law, law, Own())
