"""Pipelines in the Hugging Face layout, against plain diffusers on the very same folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.diffusion.predictions import Prediction
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.export import ASSISTANT
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.loading import load_generator, load_reference
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.stock_schedulers import one_step_scheduler
from dipp_toolkit.protocols import Generator, Reference
from tiny import IMAGE_SHAPE, LATENT_SHAPE, PROMPTS, TOKENS, plain_diffusers, tiny_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def reference(folder: Path) -> DiffusersReference:
    return DiffusersReference.load(str(folder))


def test_a_reference_fills_its_role(reference: DiffusersReference) -> None:
    assert isinstance(reference, Reference)
    assert reference.latent_shape == LATENT_SHAPE
    networks = [reference.network, reference.vae]
    assert not any(parameter.requires_grad for network in networks for parameter in network.parameters())
    assert not any(network.training for network in networks)


def test_prompts_are_encoded_to_one_length(reference: DiffusersReference) -> None:
    one, many = reference.encode(["cat"]), reference.encode(PROMPTS)
    assert one.tensors["encoder_hidden_states"].shape == (1, TOKENS, 16)
    assert many.tensors["encoder_attention_mask"].shape == (len(PROMPTS), TOKENS)
    assert many.prompts == PROMPTS
    joined = Condition.cat([one, many])
    assert joined.prompts == ("cat", *PROMPTS)


def test_encoding_does_not_depend_on_the_neighbours(reference: DiffusersReference) -> None:
    together = reference.encode(PROMPTS)[[1]].tensors["encoder_hidden_states"]
    torch.testing.assert_close(together, reference.encode([PROMPTS[1]]).tensors["encoder_hidden_states"])


def test_the_null_condition_is_the_empty_prompt(reference: DiffusersReference) -> None:
    null, empty = reference.null(3), reference.encode(["", "", ""])
    assert null.prompts == ("", "", "")
    for name, tensor in empty.tensors.items():
        torch.testing.assert_close(null.tensors[name], tensor)


def test_the_condition_matters(reference: DiffusersReference, noise: Tensor) -> None:
    t = torch.full((len(noise),), 0.7)
    given = reference.denoiser.predict_x0(noise, t, reference.encode(PROMPTS))
    empty = reference.denoiser.predict_x0(noise, t, reference.null(len(noise)))
    assert given.shape == noise.shape
    assert (given - empty).abs().max() > 1e-3


def test_decoding_gives_images_and_gradients(reference: DiffusersReference, noise: Tensor) -> None:
    latents = noise.clone().requires_grad_(True)
    images = reference.decode(latents)
    assert images.shape == (len(noise), *IMAGE_SHAPE)
    assert images.min() >= 0
    assert images.max() <= 1
    (gradient,) = torch.autograd.grad(images.sum(), latents)
    assert gradient.shape == latents.shape
    assert gradient.abs().flatten(1).sum(1).min() > 0


def test_decoding_agrees_with_the_pipeline(reference: DiffusersReference, noise: Tensor) -> None:
    pipeline = DiffusionPipeline.from_pretrained(reference.folder)
    with torch.no_grad():
        decoded = pipeline.vae.decode(noise / pipeline.vae.config.scaling_factor).sample
    theirs = pipeline.image_processor.postprocess(decoded, output_type="pt")
    torch.testing.assert_close(reference.decode(noise), theirs)


def test_a_saturated_pixel_still_has_a_gradient(reference: DiffusersReference, noise: Tensor) -> None:
    latents = (50 * noise).requires_grad_(True)
    images = reference.decode(latents)
    assert ((images == 0) | (images == 1)).any()
    (gradient,) = torch.autograd.grad(images[(images == 0) | (images == 1)].sum(), latents)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_sampling_equals_the_stock_pipeline(
    tmp_path: Path, noise: Tensor, prediction: Prediction, guidance: float
) -> None:
    folder = tiny_pipeline(tmp_path, prediction_type=prediction, beta_schedule="linear")
    reference = DiffusersReference.load(str(folder))
    ours = reference.sample(reference.encode(PROMPTS), noise, 6, guidance)
    torch.testing.assert_close(ours, plain_diffusers(folder, noise, 6, guidance), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_the_denoised_sample_equals_ddpms(tmp_path: Path, noise: Tensor, prediction: Prediction) -> None:
    reference = DiffusersReference.load(
        str(tiny_pipeline(tmp_path, prediction_type=prediction, beta_schedule="linear"))
    )
    scheduler = DDPMScheduler(beta_schedule="linear", prediction_type=prediction, clip_sample=False)
    condition, timestep = reference.encode(PROMPTS), 600
    raw = reference.family.forward(reference.denoiser.network, noise, torch.full((len(noise),), timestep), condition)
    theirs = scheduler.step(raw, timestep, noise, generator=torch.Generator()).pred_original_sample
    ours = reference.denoiser.predict_x0(noise, torch.full((len(noise),), timestep / 999), condition)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("prediction", "beta_schedule"),
    [
        ("sample", "squaredcos_cap_v2"),
        ("epsilon", "linear"),
        ("v_prediction", "linear"),
        ("v_prediction", "squaredcos_cap_v2"),
    ],
)
def test_an_exported_generator_is_a_stock_pipeline(
    tmp_path: Path, noise: Tensor, prediction: Prediction, beta_schedule: str
) -> None:
    folder = tiny_pipeline(tmp_path / "reference", prediction_type=prediction, beta_schedule=beta_schedule)
    reference = DiffusersReference.load(str(folder))
    generator = DiffusersGenerator.from_reference(reference)
    assert isinstance(generator, Generator)
    with torch.no_grad():
        for parameter in generator.network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        ours = generator.generate(noise, reference.encode(PROMPTS))
    generator.save_pretrained(tmp_path / "exported")
    scale = ours.abs().max().item()
    torch.testing.assert_close(
        plain_diffusers(tmp_path / "exported", noise, 1, 1.0), ours, rtol=1e-4, atol=1e-5 * scale
    )
    again = DiffusersGenerator.load(str(tmp_path / "exported"))
    assert (again.readout, again.latent_shape) == (1.0, LATENT_SHAPE)
    with torch.no_grad():
        assert torch.equal(again.generate(noise, reference.encode(PROMPTS)), ours)


def test_generating_is_differentiable_and_leaves_the_reference_alone(
    reference: DiffusersReference, noise: Tensor
) -> None:
    generator = DiffusersGenerator.from_reference(reference)
    generator.generate(noise, reference.encode(PROMPTS)).square().sum().backward()
    gradients = [parameter.grad for parameter in generator.network.parameters()]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    assert all(parameter.grad is None for parameter in reference.denoiser.network.parameters())
    assert all(parameter.requires_grad for parameter in generator.network.parameters())


def test_an_exported_assistant_comes_back(reference: DiffusersReference, tmp_path: Path) -> None:
    generator = DiffusersGenerator.from_reference(reference)
    assert generator.load_assistant(reference.network) is None
    assistant = reference.denoiser.trainable_copy().network
    with torch.no_grad():
        for parameter in assistant.parameters():
            parameter.add_(1)
    generator.save_pretrained(tmp_path / "out", assistant)
    assert (tmp_path / "out" / ASSISTANT).is_dir()
    DiffusionPipeline.from_pretrained(tmp_path / "out")
    loaded = DiffusersGenerator.load(str(tmp_path / "out")).load_assistant(reference.network)
    assert loaded is not None
    for name, tensor in assistant.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_export_is_safe_to_repeat(reference: DiffusersReference, tmp_path: Path) -> None:
    generator = DiffusersGenerator.from_reference(reference)
    for _ in range(2):
        generator.save_pretrained(tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["_class_name"] == "PixArtAlphaPipeline"
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]


def test_names_of_folders(folder: Path, tmp_path: Path) -> None:
    assert load_reference(f"diffusers:{folder}").latent_shape == LATENT_SHAPE
    shutil.copytree(folder, tmp_path / "run" / "final")
    assert load_generator(str(tmp_path / "run")).latent_shape == LATENT_SHAPE


def test_a_missing_folder_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"There is no pipeline folder {tmp_path}/gone \(looked in {tmp_path}\)"):
        load_reference(str(tmp_path / "gone"))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="There is no pipeline folder"):
        load_generator(str(tmp_path / "file"))


def test_a_foreign_folder_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"is not a diffusers pipeline: it has neither model_index\.json"):
        load_reference(str(tmp_path))


def test_an_unknown_pipeline_class_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "PixArtAlfaPipeline"}')
    with pytest.raises(RequestError, match=r"No plugin can load .* Did you mean 'PixArtAlphaPipeline'\?"):
        load_reference(str(tmp_path))


def test_a_damaged_index_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(RequestError, match=r"Cannot read .*model_index\.json"):
        load_generator(str(tmp_path))


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RequestError, match="There is no reference named 'no-such-thing'"):
        load_reference("no-such-thing")


def test_what_no_stock_scheduler_expresses_is_refused() -> None:
    with pytest.raises(RequestError, match=r"starts at time 1.*reads out at 0\.4"):
        one_step_scheduler({"_class_name": "FlowMatchEulerDiscreteScheduler"}, 0.4)
    with pytest.raises(RequestError, match="predicts noise"):
        one_step_scheduler({"beta_schedule": "squaredcos_cap_v2"}, 1.0)


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("readout", [0.4, 399 / 999, 0.625])
def test_a_read_out_below_1_is_a_stock_pipeline_too(
    tmp_path: Path, noise: Tensor, prediction: Prediction, readout: float
) -> None:
    reference = DiffusersReference.load(
        str(tiny_pipeline(tmp_path / "reference", prediction_type=prediction, beta_schedule="linear"))
    )
    generator = DiffusersGenerator.from_reference(reference, readout)
    with torch.no_grad():
        ours = generator.generate(noise, reference.encode(PROMPTS))
    generator.save_pretrained(tmp_path / "exported")
    torch.testing.assert_close(plain_diffusers(tmp_path / "exported", noise, 1, 1.0), ours, rtol=1e-5, atol=1e-5)
    again = DiffusersGenerator.load(str(tmp_path / "exported"))
    with torch.no_grad():
        torch.testing.assert_close(again.generate(noise, reference.encode(PROMPTS)), ours, rtol=1e-5, atol=1e-5)
