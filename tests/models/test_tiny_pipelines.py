"""Tiny twins: the stock classes load and run them, the prompt matters, and their bytes are the seed's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, FluxPipeline, PixArtAlphaPipeline

from dipp_flux.family import write_flux_twin
from dipp_pixart.family import write_pixart_twin
from dipp_stable_diffusion.family import write_stable_diffusion_twin, write_stable_diffusion_xl_twin
from dipp_stable_diffusion_3.family import write_stable_diffusion_3_twin
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.models.tiny_tokenizers import WORDS, byte_symbols, tiny_clip_tokenizer, tiny_t5_tokenizer
from dipp_toolkit.registry import Entry, Registry

WRITERS: dict[str, Callable[..., Path]] = {
    "PixArtAlphaPipeline": write_pixart_twin,
    "StableDiffusionPipeline": write_stable_diffusion_twin,
    "StableDiffusionXLPipeline": write_stable_diffusion_xl_twin,
    "StableDiffusion3Pipeline": write_stable_diffusion_3_twin,
    "FluxPipeline": write_flux_twin,
}
T5, CLIP, POOLED_CLIP = "T5EncoderModel", "CLIPTextModel", "CLIPTextModelWithProjection"
COMPONENTS: dict[str, dict[str, str]] = {
    "PixArtAlphaPipeline": {
        "transformer": "PixArtTransformer2DModel", "text_encoder": T5, "tokenizer": "T5Tokenizer",
        "scheduler": "DPMSolverMultistepScheduler",
    },
    "StableDiffusionPipeline": {
        "unet": "UNet2DConditionModel", "text_encoder": CLIP, "tokenizer": "CLIPTokenizer",
        "scheduler": "PNDMScheduler",
    },
    "StableDiffusionXLPipeline": {
        "unet": "UNet2DConditionModel", "text_encoder": CLIP, "tokenizer": "CLIPTokenizer",
        "text_encoder_2": POOLED_CLIP, "tokenizer_2": "CLIPTokenizer", "scheduler": "EulerDiscreteScheduler",
    },
    "StableDiffusion3Pipeline": {
        "transformer": "SD3Transformer2DModel", "text_encoder": POOLED_CLIP, "tokenizer": "CLIPTokenizer",
        "text_encoder_2": POOLED_CLIP, "tokenizer_2": "CLIPTokenizer", "text_encoder_3": T5,
        "tokenizer_3": "T5Tokenizer", "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
    "FluxPipeline": {
        "transformer": "FluxTransformer2DModel", "text_encoder": CLIP, "tokenizer": "CLIPTokenizer",
        "text_encoder_2": T5, "tokenizer_2": "T5Tokenizer", "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
}  # fmt: skip
ABSENT = {"safety_checker", "feature_extractor", "image_encoder"}
EVERY_CLASS = pytest.mark.parametrize("name", WRITERS)


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def loaded(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Any, prompts: list[str]) -> torch.Tensor:
    """Two steps of the stock pipeline from one noise for all prompts."""
    channels = pipeline.vae.config.latent_channels
    latents = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(1)).repeat(len(prompts), 1, 1, 1)
    call: dict[str, Any] = {}
    if isinstance(pipeline, PixArtAlphaPipeline):
        call = {"use_resolution_binning": False}
    elif isinstance(pipeline, FluxPipeline):
        latents = pipeline._pack_latents(latents, len(prompts), channels, 8, 8)
        call = {"height": 16, "width": 16}
    return pipeline(prompts, latents=latents, num_inference_steps=2, output_type="pt", **call).images


@EVERY_CLASS
def test_the_stock_pipeline_loads_and_runs_it(name: str, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    folder = WRITERS[name](tmp_path / "twin")
    assert torch.equal(torch.get_rng_state(), state)
    pipeline = loaded(folder)
    assert type(pipeline).__name__ == name
    components = {
        part: type(component).__name__ for part, component in pipeline.components.items() if part not in ABSENT
    }
    assert components == {"vae": "AutoencoderKL", **COMPONENTS[name]}
    assert all(pipeline.components.get(part) is None for part in ABSENT)
    for network in (component for component in pipeline.components.values() if isinstance(component, torch.nn.Module)):
        assert sum(parameter.numel() for parameter in network.parameters()) < 100_000
        assert all((parameter.abs() > 0).float().mean() > 0.99 for parameter in network.parameters())

    images = draw(pipeline, ["a red cat", "the blue sea", "a red cat"])
    assert images.shape == (3, 3, 16, 16)
    assert images.isfinite().all()
    torch.testing.assert_close(images[0], images[2])
    assert (images[0] - images[1]).abs().max() > 1e-2


@EVERY_CLASS
def test_the_weights_are_the_seeds(name: str, tmp_path: Path) -> None:
    first, again, other = (WRITERS[name](tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1)))
    assert weights(first) == weights(again)
    assert len(weights(first)) == 2 + sum(part.startswith("text_encoder") for part in COMPONENTS[name])
    assert all(weights(first)[path] != content for path, content in weights(other).items())
    assert not [path for path in first.rglob("*.json") if str(tmp_path) in path.read_text()]


@EVERY_CLASS
def test_every_text_encoder_matters(name: str, tmp_path: Path) -> None:
    pipeline = loaded(WRITERS[name](tmp_path / "twin"))
    before = draw(pipeline, ["a red cat"])
    for part in (part for part in COMPONENTS[name] if part.startswith("text_encoder")):
        embedding = pipeline.components[part].get_input_embeddings().weight
        kept = embedding.detach().clone()
        with torch.no_grad():
            embedding.copy_(embedding.flip(0))
        assert (draw(pipeline, ["a red cat"]) - before).abs().max() > 1e-4, part
        with torch.no_grad():
            embedding.copy_(kept)


@pytest.mark.parametrize("name", ["PixArtAlphaPipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline"])
def test_a_prediction_is_the_schedulers(name: str, tmp_path: Path) -> None:
    for asked, told in ((None, "epsilon"), ("v_prediction", "v_prediction")):
        folder = WRITERS[name](tmp_path / told, prediction_type=asked)
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        assert config["prediction_type"] == told
    with pytest.raises(RequestError, match="no prediction_type 'velocity'"):
        WRITERS[name](tmp_path / "none", prediction_type="velocity")


@pytest.mark.parametrize("name", ["StableDiffusion3Pipeline", "FluxPipeline"])
def test_flow_matching_is_all_there_is_of_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no prediction_type 'epsilon'"):
        WRITERS[name](tmp_path / "none", prediction_type="epsilon")
    folder = WRITERS[name](tmp_path / "small", prediction_type="velocity", latent_channels=4, max_tokens=9, t5_tokens=7)
    pipeline = loaded(folder)
    assert pipeline.tokenizer.model_max_length == 9
    assert pipeline.vae.config.shift_factor and pipeline.vae.quant_conv is None
    assert draw(pipeline, ["a big red house, with a very long prompt"]).isfinite().all()


def test_flux_without_guidance_embeddings(tmp_path: Path) -> None:
    pipeline = loaded(write_flux_twin(tmp_path / "schnell", guidance_embeds=False, dynamic_shifting=False))
    assert not pipeline.transformer.config.guidance_embeds and not pipeline.scheduler.config.use_dynamic_shifting
    assert draw(pipeline, ["a red cat"]).isfinite().all()


def test_by_the_class_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = write_twin("StableDiffusionPipeline", tmp_path / "empty", seed=3, max_tokens=12)
    assert weights(folder) == weights(write_stable_diffusion_twin(tmp_path / "direct", seed=3, max_tokens=12))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["direct", "empty"]
    with pytest.raises(RequestError, match="in use"):
        write_twin("StableDiffusionPipeline", folder)
    with pytest.raises(RequestError, match="in use"):
        write_twin("StableDiffusionPipeline", folder / "model_index.json")


def test_what_fails_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no pipeline named 'StableDifusionXLPipeline'\. Did you mean"):
        write_twin("StableDifusionXLPipeline", tmp_path / "twin")
    with pytest.raises(RequestError, match=r"no such option.*'max_tokens'"):
        write_twin("PixArtAlphaPipeline", tmp_path / "twin", max_token=3)
    with pytest.raises(RequestError, match="no prediction_type"):
        write_twin("StableDiffusionPipeline", tmp_path / "twin", prediction_type="sample")
    assert not list(tmp_path.iterdir())


def test_a_family_without_a_twin(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry.entries["pipeline"]["BarePipeline"] = Entry("pipeline", "BarePipeline", object, "no twin", (), "bare")
    monkeypatch.setattr("dipp_toolkit.models.tiny_pipelines.get_registry", lambda: registry)
    with pytest.raises(RequestError, match="'bare' has no tiny twin of BarePipeline"):
        write_twin("BarePipeline", tmp_path / "twin")


def test_the_tokenizers_encode_any_text() -> None:
    text = "A red CAT's façade, 猫 \x07 12\t{~}"
    clip = tiny_clip_tokenizer(10_000)
    assert clip.decode(clip(text).input_ids, skip_special_tokens=True) == "a red cat 's façade , 猫 \x07 1 2 {~}"
    everything = "".join(map(chr, range(1, 0x800)))
    assert clip(everything).input_ids.count(clip.unk_token_id) == 1  # the end token, which also stands for unknown ones
    assert clip.convert_tokens_to_ids("!") == 0 and clip.eos_token_id == len(clip) - 1
    assert {*byte_symbols(), *(symbol + "</w>" for symbol in byte_symbols())} < clip.get_vocab().keys()
    assert all(len(clip(word).input_ids) == 3 for word in WORDS)
    tokens = ["<|startoftext|>", "a</w>", "red</w>", "cat</w>", "<|endoftext|>"]
    assert clip.convert_ids_to_tokens(clip("a red cat").input_ids) == tokens

    t5 = tiny_t5_tokenizer(1000)
    printable = "".join(map(chr, range(ord("!"), ord("~") + 1)))
    assert t5.unk_token_id not in t5(printable + " a red cat's").input_ids
    assert t5.decode(t5(printable).input_ids, skip_special_tokens=True) == printable
    assert t5.unk_token_id in t5("猫").input_ids
    assert (t5.pad_token_id, t5.eos_token_id, t5.unk_token_id) == (0, 1, 2)
    assert all(len(t5(word).input_ids) == 2 for word in WORDS)
