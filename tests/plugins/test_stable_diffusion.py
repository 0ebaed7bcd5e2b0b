"""Stable Diffusion folders as references and generators, against plain diffusers on the very same folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dipp_toolkit import TrainConfig, load_generator, load_reference
from dipp_toolkit.protocols import Generator, Reference
from dipp_toolkit.training.run import train
from tiny import LATENT_SHAPE, PROMPTS, plain_diffusers
from tiny_stable_diffusion import tiny_stable_diffusion, tiny_stable_diffusion_xl

MAKERS = pytest.mark.parametrize("make", [tiny_stable_diffusion, tiny_stable_diffusion_xl], ids=["sd", "sdxl"])


@MAKERS
@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_sampling_equals_the_stock_pipeline(
    make: Callable[..., Path], prediction: str, guidance: float, tmp_path: Path, noise: Tensor
) -> None:
    folder = make(tmp_path, prediction_type=prediction)
    reference = load_reference(f"diffusers:{folder}")
    assert isinstance(reference, Reference) and reference.latent_shape == LATENT_SHAPE
    ours = reference.sample(reference.encode(PROMPTS), noise, 6, guidance)
    torch.testing.assert_close(ours, plain_diffusers(folder, noise, 6, guidance), rtol=1e-4, atol=1e-4)


@MAKERS
def test_the_condition_matters_and_the_null_is_the_empty_prompt(
    make: Callable[..., Path], tmp_path: Path, noise: Tensor
) -> None:
    reference = load_reference(str(make(tmp_path)))
    t = torch.full((len(noise),), 0.7)
    given = reference.denoiser.predict_x0(noise, t, reference.encode(PROMPTS))
    empty = reference.denoiser.predict_x0(noise, t, reference.null(len(noise)))
    assert (given - empty).abs().max() > 1e-3
    mixed = reference.encode(["", PROMPTS[0]])
    for name, tensor in reference.null(1).tensors.items():
        torch.testing.assert_close(mixed.tensors[name][:1], tensor)


@MAKERS
def test_a_run_leaves_a_pipeline_whose_one_step_is_the_generators(
    make: Callable[..., Path], tmp_path: Path, noise: Tensor
) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    reference = make(tmp_path / "reference")
    config = TrainConfig(
        reference=str(reference), prompts=str(tmp_path / "prompts.txt"), steps=2, batch_size=2, guidance=2.0,
        learning_rate=1e-3, eval_count=2, reference_steps=2, device="cpu", out=tmp_path / "run",
    )  # fmt: skip
    final = train(config).folder / "final"
    generator = load_generator(str(final))
    assert isinstance(generator, Generator)
    with torch.no_grad():
        ours = generator.generate(noise, load_reference(str(reference)).encode(PROMPTS))
    torch.testing.assert_close(ours, plain_diffusers(final, noise, 1, 1.0), rtol=1e-4, atol=1e-4)
    before = load_reference(str(reference)).denoiser.network.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in generator.network.state_dict().items())
