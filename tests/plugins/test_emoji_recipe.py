"""The recipe's references, as stock pipelines, and its stages in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from torch import Tensor

from dipp_emoji import WEIGHTS
from dipp_emoji.captions import TEMPLATES, caption, emoji
from dipp_emoji.recipe import __main__ as recipe
from dipp_emoji.recipe.muon import Muon, orthogonal
from dipp_emoji.recipe.pixart import PixArt
from dipp_emoji.recipe.reference import Architecture, ReferenceTraining, parameter_groups, snr, train_reference
from dipp_emoji.recipe.unet import TOKENS, StableDiffusion
from dipp_toolkit import load_reference
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise


def bank() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        "latents": torch.randn(4, 4, 32, 32, generator=random),
        "emoji": torch.tensor([0, 1, 2, 3]),
        "background": torch.tensor([1, 2, 3, 4]),
    }


def training(architecture: Architecture, steps: int = 2) -> ReferenceTraining:
    return ReferenceTraining(architecture, bank(), steps, batch=2, rates=(2e-3, 1e-3))


def test_every_caption_fits_the_unets_tokens_and_is_made_of_whole_words() -> None:
    tokenizer = StableDiffusion().tokenizer
    for i, item in enumerate(emoji()):
        for name in range(len(item.names)):
            for template in range(len(TEMPLATES)):
                text = caption(i, i % 8, name, template)
                assert len(tokenizer(text)["input_ids"]) <= TOKENS
                assert tokenizer.tokenize(text) == [f"{word}</w>" for word in text.replace(",", " ,").split()]


def test_the_unet_is_a_stock_pipeline_and_makes_the_same_images_there(tmp_path: Path) -> None:
    run = training(StableDiffusion())
    assert [step for step, _, _ in train_reference(run, tmp_path / "checkpoints")] == []  # told every 50 steps
    assert run.step == 2
    vae = AutoencoderTiny.from_pretrained(WEIGHTS / "reference" / "vae")
    run.pipeline(vae).save_pretrained(tmp_path / "reference")

    reference = load_reference(str(tmp_path / "reference"))
    assert isinstance(reference, DiffusersReference)
    assert reference.latent_shape == (4, 32, 32)
    prompts, noise = ["fox on blue", "birthday cake on yellow"], fixed_noise(2, reference.latent_shape, seed=3)
    ours = reference.decode(reference.sample(reference.encode(prompts), noise, 3, 2.0))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "reference")
    theirs = pipeline(prompts, num_inference_steps=3, guidance_scale=2.0, latents=noise, output_type="pt").images
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("architecture", "floor"), [(PixArt, 0.1), (StableDiffusion, 0.02)])
def test_losses_are_the_error_of_the_clean_sample_in_one_unit(
    architecture: type[PixArt] | type[StableDiffusion], floor: float
) -> None:
    made = architecture()
    networks = made.build().eval()
    x0, random = bank()["latents"], torch.Generator().manual_seed(1)
    t = torch.tensor([20, 300, 600, 999])
    squares = made.alphas_cumprod[t][:, None, None, None]
    noise = torch.randn(x0.shape, generator=random)
    x_t = squares.sqrt() * x0 + (1 - squares).sqrt() * noise
    encoded = made.tokenizer(["fox on blue"] * 4, padding="max_length", return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    with torch.no_grad():
        losses = made.loss(networks, x_t, t, x0, ids, mask)
        vae = AutoencoderTiny.from_pretrained(WEIGHTS / "reference" / "vae")
        folder_free = made.pipeline(networks, vae)
        if isinstance(made, PixArt):
            text = folder_free.text_encoder(ids, mask).last_hidden_state
            denoised = folder_free.transformer(
                x_t, text, encoder_attention_mask=mask, timestep=t,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            ).sample  # fmt: skip
        else:
            predicted = folder_free.unet(x_t, t, folder_free.text_encoder(ids).last_hidden_state).sample
            denoised = (x_t - (1 - squares).sqrt() * predicted) / squares.sqrt()
    weights = snr(made.alphas_cumprod, t).clamp(max=5) + floor
    torch.testing.assert_close(losses, weights * (denoised - x0).square().mean((1, 2, 3)), rtol=2e-3, atol=1e-4)


def test_muon_makes_gradients_orthogonal() -> None:
    for shape in ((6, 20), (20, 6)):
        singular = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert 0.6 < singular.min() < singular.max() < 1.3


def test_muon_is_torchs_on_matrices_and_takes_filters() -> None:
    random = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(12, 8, generator=random), torch.randn(4, 12, 8, generator=random)
    weights = [torch.nn.Parameter(start.clone()) for _ in range(2)] + [
        torch.nn.Parameter(start.clone().reshape(12, 2, 2, 2))
    ]
    theirs = torch.optim.Muon([weights[0]], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    ours = Muon(weights[1:], lr=0.1, weight_decay=0.01)
    for gradient in gradients:
        for weight in weights:
            weight.grad = gradient.reshape(weight.shape)
        theirs.step()
        ours.step()
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=0.01)  # theirs iterates in bfloat16
    assert (weights[0] - start).abs().mean() > 0.03
    assert torch.equal(weights[2].flatten(1), weights[1])


def test_filters_and_matrices_of_blocks_are_muons() -> None:
    matrices, others = parameter_groups(StableDiffusion().build())
    assert {weight.ndim for weight in matrices} == {2, 4}
    assert sum(weight.numel() for weight in matrices) > 4 * sum(weight.numel() for weight in others)


def test_a_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = training(StableDiffusion())
    for _ in train_reference(whole, tmp_path / "whole"):
        pass
    half = training(StableDiffusion())
    half.one_step()
    recipe_state = half.state_dict()
    again = training(StableDiffusion())
    again.load_state_dict(recipe_state)
    again.one_step()
    for one, other in zip(whole.average, again.average, strict=True):
        assert torch.equal(one, other)


def test_a_stage_begins_with_the_plugins_weights_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def unet_reference(work: Path) -> dict[str, int]:
        """Stands in for hours."""
        seen.append(work / "vae" / "config.json")
        return {"steps": 1}

    monkeypatch.setitem(recipe.STAGES, "unet_reference", unet_reference)
    words = ["--work", str(tmp_path), "--only", "vae", "unet_reference", "--take", "vae"]
    recipe.main(words)
    assert [path.is_file() for path in seen] == [True]
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    shipped = json.loads(recipe.RECORD.read_text(encoding="utf-8"))
    assert record["vae"] == shipped["vae"] | {"taken": True}
    assert record["unet_reference"]["steps"] == 1
    recipe.main(words)
    assert len(seen) == 1


def test_weights_that_the_plugin_has_not_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "WEIGHTS", tmp_path / "nowhere")
    with pytest.raises(SystemExit):
        recipe.main(["--work", str(tmp_path / "work"), "--take", "clip"])
    assert "There are no weights of stage 'clip'" in capsys.readouterr().err
