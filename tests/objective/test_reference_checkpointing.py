"""Blocks of the reference are recomputed where a term differentiates through it, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from tiny import PROMPTS
from tiny_runs import BLUE


@dataclass
class Pass:
    """A term's value on a sample.

    Attributes:
        gradient: the term's.
        calls: forward passes of the reference's first block.
        saved: bytes that graphs keep.
    """

    gradient: Tensor
    calls: int
    saved: int


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("world")
    (folder / "blue.py").write_text(BLUE)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    twin = str(write_twin("PixArtAlphaPipeline", folder / "twin"))
    return {
        "reference": twin, "generator": twin, "prompts": str(folder / "prompts.txt"), "precision": "fp32",
        "rewards": {f"{folder}/blue.py:blueness": 1.0}, "eval_count": 2, "device": "cpu",
    }  # fmt: skip


def evaluated(settings: dict[str, Any], folder: Path, **changes: Any) -> Pass:
    """The first term of a run, on a fixed sample."""
    parts = assemble(resolve(TrainConfig(**settings, **changes, out=folder)))
    assert isinstance(parts.reference, DiffusersReference)
    calls, saved = [], {}
    block = parts.reference.network.transformer_blocks[0]
    hook = block.register_forward_pre_hook(lambda *_: calls.append(1))
    kept = {parameter.data_ptr() for network in (parts.reference.network, parts.assistant.denoiser.network)
            for parameter in network.parameters()}  # fmt: skip

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in kept:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    random = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *parts.reference.latent_shape, generator=random)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        term = next(weighted.term for weighted in parts.engine.terms if weighted.name == changes["term"])
        gradient = term(Sample(0.3 * noise, parts.eval_conditions[[0, 1]], noise, random)).grad
    hook.remove()
    return Pass(gradient, len(calls), sum(saved.values()))


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("term", ["score_divergence", "diffused_reward", "integral_kl"])
def test_the_reference_is_recomputed_where_it_is_differentiated(
    settings: dict[str, Any], tmp_path: Path, term: str, mode: str
) -> None:
    options = {"term": term, "mode": mode, "lora_rank": 2, "guidance": 2.0}
    plain = evaluated(settings, tmp_path, **options)
    again = evaluated(settings, tmp_path, **options, gradient_checkpointing=True)
    assert plain.calls == 1
    assert again.calls == (1 if term == "integral_kl" else 2)
    torch.testing.assert_close(again.gradient, plain.gradient, rtol=1e-5, atol=1e-6)
    if term == "score_divergence":
        assert again.saved < 0.6 * plain.saved
