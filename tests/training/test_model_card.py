"""The model card's snippet, run as it stands, draws the image of `dipp generate`."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from dipp_cli.actions.generate import GenerateRequest, make_images
from dipp_pixart.family import PixArtFamily
from dipp_toolkit.config import make_config
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.training.publish import call_arguments, write_model_card

CLASSES = (
    "PixArtAlphaPipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline",
    "FluxPipeline",
)  # fmt: skip
SIGMA = [
    ("PixArtAlphaPipeline", 440 / 999, "sigma"),
    ("StableDiffusionPipeline", 625 / 999, "sigma"),
    ("StableDiffusionXLPipeline", 1.0, "sigma"),
]
SEED = 5


def snippet_of(folder: Path) -> str:
    """The Python block of a folder's card."""
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


@pytest.mark.parametrize(
    ("name", "readout", "input_scale"), [*((name, 1.0, None) for name in CLASSES), *SIGMA], ids=str
)
def test_the_snippet_draws_what_dipp_generate_draws(
    name: str, readout: float, input_scale: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_twin(name, tmp_path / "twin")
    generator = DiffusersGenerator.load(str(folder), readout, input_scale=input_scale)
    final = tmp_path / "final"
    generator.save_pretrained(final)
    write_model_card(final, make_config({"generator": "twin", "reference": "twin"}), {})

    noise = fixed_noise(1, generator.latent_shape, SEED)
    module: Any = importlib.import_module(type(DiffusionPipeline.from_pretrained(final)).__module__)

    def same_noise(shape: tuple[int, ...], **_options: Any) -> torch.Tensor:
        assert tuple(shape) == tuple(noise.shape), "the snippet asks for another size"
        return noise

    monkeypatch.setattr(module, "randn_tensor", lambda shape, *_args, **options: same_noise(shape))
    namespace: dict[str, Any] = {}
    exec(snippet_of(final).replace("path/to/this/folder", str(final)), namespace)

    _, ours, _ = make_images(GenerateRequest(generator=str(final), prompt=["a prompt"], seed=SEED, device="cpu"))
    expected = (ours[0].permute(1, 2, 0).numpy() * 255).round()
    drawn = np.asarray(namespace["image"], dtype=np.float32)
    assert drawn.shape == expected.shape
    assert np.abs(drawn - expected).max() <= 1  # a level of 8 bits, where a value lies on the edge between two
    assert np.abs(drawn - expected).mean() < 0.01


@pytest.mark.parametrize(
    ("sample_size", "levels", "binned"), [(32, 2, False), (8, 2, False), (64, 4, True), (128, 4, True), (64, 3, False)]
)
def test_pixart_says_when_its_pipeline_would_round_the_size(sample_size: int, levels: int, binned: bool) -> None:
    arguments = PixArtFamily().call_arguments({"sample_size": sample_size}, {"block_out_channels": [8] * levels})
    assert ("use_resolution_binning" not in arguments) == binned


def test_the_emoji_generators_card_says_what_it_needs() -> None:
    import dipp_emoji

    arguments = call_arguments(dipp_emoji.WEIGHTS / "onestep", 1)
    assert arguments["use_resolution_binning"] is False
