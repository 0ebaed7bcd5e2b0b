"""Options that save memory: exact ones change nothing, approximate ones are as near as they say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from dipp_toolkit import TrainConfig
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import PluginError, RequestError
from dipp_toolkit.models import decoding
from dipp_toolkit.models.compilation import repeated_blocks
from dipp_toolkit.models.decoding import DecodeOptions, Recomputed
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.planning.dry_run import Meter
from dipp_toolkit.training.optim import make_optimizer
from dipp_toolkit.training.run import train
from tiny import PROMPTS

BLUE = "def blue(images, prompts):\n    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))\n"


class Sharp:
    """Differs from pixel to pixel, so that every part of the decode matters."""

    differentiable = True

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return (images[..., 1:] - images[..., :-1]).square().mean((1, 2, 3))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> DiffusersReference:
    return DiffusersReference.load(str(write_twin("StableDiffusionPipeline", tmp_path_factory.mktemp("twin") / "twin")))


def gradient(reference: DiffusersReference, options: DecodeOptions, batch: int = 0) -> tuple[Tensor, Tensor]:
    x0 = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.2
    sample = Sample(x0, Condition(PROMPTS[:3]), x0, torch.Generator())
    result = RewardTerm("sharp", Sharp(), reference.reward_decoder(options), batch)(sample)
    return result.value, result.grad


@pytest.mark.parametrize(
    ("options", "batch"),
    [(DecodeOptions(checkpointing=True), 0), (DecodeOptions(), 1), (DecodeOptions(), 2)],
    ids=["checkpointed", "one-at-a-time", "two-at-a-time"],
)
def test_exact_options_change_no_score_and_no_gradient(
    reference: DiffusersReference, options: DecodeOptions, batch: int
) -> None:
    for ours, plain in zip(gradient(reference, options, batch), gradient(reference, DecodeOptions()), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-7)
    assert not getattr(reference.vae.decoder, "gradient_checkpointing", False)


def test_the_decoder_is_recomputed_layer_by_layer(reference: DiffusersReference) -> None:
    """A graph holds each layer's input alone, and none of its own tensors; the scores have the same bits."""

    def decoded(options: DecodeOptions) -> tuple[Tensor, int]:
        latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        held: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            images = reference.reward_decoder(options)(latents)
        return torch.cat([images.flatten(), torch.autograd.grad(images.square().sum(), latents)[0].flatten()]), sum(
            held.values()
        )

    plain, whole = decoded(DecodeOptions())
    again, part = decoded(DecodeOptions(checkpointing=True))
    assert torch.equal(again, plain)
    assert part < whole / 2
    assert not isinstance(reference.vae.decoder.mid_block.resnets[0], Recomputed), "the pipeline's own is as it was"
    recomputed = reference.reward_decoder(DecodeOptions(checkpointing=True)).vae
    assert len(repeated_blocks(recomputed.decoder)) == len(repeated_blocks(reference.vae.decoder)) > 0


@pytest.mark.parametrize("numbers", [1, 2 * 8 * 16 * 16], ids=["one-image", "few-images"])
def test_large_layers_are_recomputed_in_pieces_of_the_batch(
    reference: DiffusersReference, monkeypatch: pytest.MonkeyPatch, numbers: int
) -> None:
    """Images and gradients are those of the whole batch up to rounding; the most bytes alive at once are fewer."""

    def decoded(options: DecodeOptions) -> tuple[Tensor, Tensor, int]:
        latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        decode = reference.reward_decoder(options)
        with Meter() as meter:
            images = decode(latents)
            (slope,) = torch.autograd.grad(images.square().sum(), latents)
        return images.detach(), slope, meter.peak

    images, slope, _ = decoded(DecodeOptions())
    _, _, whole = decoded(DecodeOptions(checkpointing=True))
    monkeypatch.setattr(decoding, "AT_A_TIME", numbers)
    ours, own_slope, pieces = decoded(DecodeOptions(checkpointing=True))
    torch.testing.assert_close(ours, images, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own_slope, slope, rtol=1e-4, atol=1e-6)
    assert pieces < whole


def test_tiles_are_decoded_with_a_gradient_everywhere(reference: DiffusersReference) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    decoder = reference.reward_decoder(DecodeOptions(tiling=True))
    assert decoder.vae.tile_latent_min_size == 4
    assert reference.vae.use_tiling is False
    assert decoder(latents).shape == reference.decode(latents).shape
    assert not torch.equal(decoder(latents), reference.decode(latents))
    _, slope = gradient(reference, DecodeOptions(tiling=True, checkpointing=True))
    assert slope.abs().flatten(1).min() > 0


@pytest.mark.parametrize(("asked", "side"), [(8, 8), (12, 12), (16, 16), (64, 16)])
def test_the_reward_resolution_is_the_images(reference: DiffusersReference, asked: int, side: int) -> None:
    images = reference.reward_decoder(DecodeOptions(resolution=asked))(torch.randn(2, 4, 8, 8))
    assert images.shape == (2, 3, side, side)


def test_a_tiny_decoder_takes_the_place_of_the_vae(reference: DiffusersReference, tmp_path: Path) -> None:
    blocks: dict[str, Any] = {
        "encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }  # fmt: skip
    AutoencoderTiny(latent_channels=4, **blocks).save_pretrained(tmp_path / "tiny")
    AutoencoderTiny(latent_channels=16, **blocks).save_pretrained(tmp_path / "other")
    decoder = reference.reward_decoder(DecodeOptions(decoder=str(tmp_path / "tiny")))
    assert isinstance(decoder.vae, AutoencoderTiny)
    assert decoder(torch.randn(1, 4, 8, 8)).shape == (1, 3, 16, 16)
    with pytest.raises(RequestError, match="16 latent channels, the reference's autoencoder 4"):
        reference.reward_decoder(DecodeOptions(decoder=str(tmp_path / "other")))
    with pytest.raises(RequestError, match="cannot be loaded"):
        reference.reward_decoder(DecodeOptions(decoder=str(tmp_path / "missing")))


def run(folder: Path, out: Path, **settings: Any) -> list[Tensor]:
    """Two steps; the weights that come out."""
    from safetensors.torch import load_file

    base: dict[str, Any] = {
        "generator": str(folder), "reference": str(folder), "rewards": {f"{folder.parent / 'blue.py'}:blue": 1.0},
        "prompts": str(folder.parent / "prompts.txt"), "steps": 2, "batch_size": 2, "eval_count": 2,
        "reference_steps": 1, "guidance": 2.0, "learning_rate": 1e-3, "device": "cpu", "out": out,
    }  # fmt: skip
    train(TrainConfig(**{**base, **settings}))
    return list(load_file(next((out / "final" / "unet").glob("*.safetensors"))).values())


@pytest.fixture(scope="module")
def world(reference: DiffusersReference) -> Path:
    root = reference.folder.parent
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    (root / "blue.py").write_text(BLUE)
    return reference.folder


@pytest.mark.first_case
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_recomputing_trains_the_same(world: Path, tmp_path: Path, mode: str) -> None:
    plain = run(world, tmp_path / "plain", mode=mode, lora_rank=4, precision="fp32")
    options = {
        "precision": "fp32",
        "recompute_generator": True,
        "gradient_checkpointing": True,
        "decode_checkpointing": True,
    }
    again = run(world, tmp_path / "again", mode=mode, lora_rank=4, **options)
    for ours, theirs in zip(again, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.first_case
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "fused", "channels_last": True},
        {"mode": "lora", "lora_rank": 4, "precision": "bf16", "frozen_precision": "bf16"},
        {"mode": "lora", "lora_rank": 4, "precision": "fp32", "frozen_precision": "bf16"},
        {"reward_resolution": 8, "reward_batch": 1},
    ],
    ids=["fused-channels-last", "bf16", "bf16-weights", "small-rewards"],
)
def test_a_run_with_each_option_trains_and_exports_float32(
    world: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    weights = run(world, tmp_path / "run", **settings)
    assert all(weight.dtype == torch.float32 for weight in weights)
    assert all(weight.isfinite().all() for weight in weights)


def test_a_missing_optimizer_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(PluginError, match=r"pip install 'dipp-toolkit\[8bit\]'"):
        make_optimizer([torch.nn.Parameter(torch.zeros(1))], 1e-3, "8bit")


def test_recomputed_blocks_take_the_attention_kernel_they_took(tmp_path: Path) -> None:
    """On a CPU in bfloat16 passes with a graph have kernels of their own, and blocks are recomputed in the backward."""
    twin = str(write_twin("PixArtAlphaPipeline", tmp_path / "twin"))
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    (tmp_path / "blue.py").write_text(BLUE)
    result = train(
        TrainConfig(
            generator=twin, reference=twin, prompts=str(tmp_path / "prompts.txt"), precision="bf16", steps=2,
            batch_size=2, rewards={f"{tmp_path / 'blue.py'}:blue": 1.0}, gradient_checkpointing=True,
            recompute_generator=True,
            eval_count=2, reference_steps=1, device="cpu", out=tmp_path / "run",
        )
    )  # fmt: skip
    assert result.summary["steps"] == 2
