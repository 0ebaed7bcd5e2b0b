"""Chroma folders against plain diffusers on the very same folders: what the contract of a family does not ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dipp_chroma.family import write_chroma_twin
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import find_pipeline, parameter_count
from dipp_toolkit.models.recomputed_blocks import recompute_blocks
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.stock_call import pack
from plain import pipeline_of

PROMPTS = ("a red cat", "the big blue sea, and on it a small yellow house, xyz", "")
LARGEST_HEADER = 200_000
"""Bytes before the tensors of a published transformer's files."""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chroma_twin(tmp_path_factory.mktemp("chroma") / "twin")


@pytest.fixture(scope="module")
def reference(twin: Path) -> DiffusersReference:
    return DiffusersReference.load(str(twin))


def test_conditions_are_what_stock_encodes_its_padding_included(reference: DiffusersReference, twin: Path) -> None:
    hidden, _, mask, empty, _, empty_mask = pipeline_of(twin).encode_prompt(list(PROMPTS), device="cpu")
    condition, null = reference.encode(PROMPTS), reference.encode([""])
    for given, rows, marked in ((condition, hidden, mask), (null, empty[:1], empty_mask[:1])):
        assert torch.equal(given.tensors["attention_mask"], marked)
        torch.testing.assert_close(given.tensors["encoder_hidden_states"], rows)
    assert null.tensors["attention_mask"].sum() == 2  # the end, and the first token behind it
    assert condition.tensors["encoder_hidden_states"][:, -1].any(1).all()


@pytest.mark.parametrize("settings", [{"use_dynamic_shifting": True}, {"shift": 1.0, "use_beta_sigmas": True}])
def test_other_schedules_are_sampled_as_stock(
    twin: Path, reference: DiffusersReference, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_chroma_twin(tmp_path / "twin")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    other, pipeline = DiffusersReference.load(str(folder)), pipeline_of(folder)
    noise, condition = fixed_noise(len(PROMPTS), other.latent_shape, 3), other.encode(PROMPTS)
    ours = other.sample(condition, noise, 3, 4.0)
    call = {"height": 16, "width": 16, "num_inference_steps": 3, "guidance_scale": 4.0, "output_type": "latent"}
    theirs = pipeline(list(PROMPTS), latents=pack(noise), **call).images
    torch.testing.assert_close(pack(ours), theirs, rtol=1e-4, atol=1e-4)
    assert (ours - reference.sample(condition, noise, 3, 4.0)).abs().max() > 1e-3


def test_gradients_reach_every_weight_and_are_those_of_blocks_that_are_kept(reference: DiffusersReference) -> None:
    condition, found = reference.encode(PROMPTS), []
    for recomputed in (False, True):
        denoiser = reference.denoiser.trainable_copy()
        if recomputed:
            recompute_blocks(denoiser.network, reference.family)
        x_t = fixed_noise(3, reference.latent_shape, 2).requires_grad_(True)
        denoiser.predict_x0(x_t, torch.full((3,), 0.7), condition).square().mean().backward()
        assert x_t.grad is not None and x_t.grad.abs().min() > 0
        gradients = {name: parameter.grad for name, parameter in denoiser.network.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())
        found.append(gradients | {"x_t": x_t.grad})
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)


def test_half_precision_is_near(twin: Path, reference: DiffusersReference) -> None:
    half = DiffusersReference.load(str(twin), torch.bfloat16)
    x_t, time = fixed_noise(3, reference.latent_shape, 2), torch.tensor([1000.0, 500.0, 250.0])  # which it rounds
    with torch.no_grad():
        ours = half.denoiser.raw_output(x_t, time, half.encode(PROMPTS))
        exact = reference.denoiser.raw_output(x_t, time, reference.encode(PROMPTS))
    assert ours.dtype == torch.float32
    assert (ours - exact).norm() < 0.02 * exact.norm()


def test_prompts_of_512_tokens_are_read(reference: DiffusersReference) -> None:
    before = int(reference.encode(["x"]).tensors["attention_mask"].sum()) - 2
    fitting = "x" * (512 - before)
    assert reference.encode([fitting]).tensors["attention_mask"].all()
    with pytest.raises(RequestError, match=r"513.*512"):
        reference.encode([fitting + "x"])


def test_the_architecture_has_the_parameters_of_the_published_files() -> None:
    blueprint = find_pipeline("chroma")
    assert blueprint.latent_shape == (16, 128, 128)
    with torch.device("meta"):
        size = 2 * parameter_count(blueprint.build("transformer"))
    published = 17_800_038_288  # of Chroma1-HD's and of Chroma1-Flash's single file, bfloat16
    assert 0 < published - size < LARGEST_HEADER
    shifts = {name: find_pipeline(name).scheduler_config["shift"] for name in ("chroma", "chroma-base", "chroma-flash")}
    assert shifts == {"chroma": 3.0, "chroma-base": 1.0, "chroma-flash": 1.0}
