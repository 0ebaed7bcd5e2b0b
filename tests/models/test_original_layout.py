"""Original names: what diffusers' own converters make of them is what was converted, in every number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils as stock
from safetensors.torch import save_file
from torch import Tensor

import dipp_flux
import dipp_pixart
import dipp_stable_diffusion
import dipp_stable_diffusion_3
from dipp_flux.original_names import original_transformer as original_flux
from dipp_pixart.published_names import from_published_names, to_published_names
from dipp_stable_diffusion.original_names import original_unet
from dipp_stable_diffusion_3.original_names import original_transformer as original_sd3
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.components import empty_component, load_component
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.original_layout.autoencoder import original_autoencoder
from dipp_toolkit.models.original_layout.checkpoint import original_checkpoint
from dipp_toolkit.models.original_layout.names import replaced
from dipp_toolkit.models.original_layout.text_encoders import original_clip, original_open_clip
from dipp_toolkit.models.tiny_pipelines import write_twin

SD, SD3, FLUX = dipp_stable_diffusion.CONFIGS, dipp_stable_diffusion_3.CONFIGS, dipp_flux.CONFIGS
LDM = "model.diffusion_model."


def shapes(tensors: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("folder", "version"), [("sd15", "v1"), ("sd21", "v2"), ("sdxl", "xl_base"), ("sd-turbo", "v2")]
)
def test_a_full_size_unet_is_known_by_its_published_names_and_converted_back(folder: str, version: str) -> None:
    network = empty_component(SD / folder, "unet")
    checkpoint = below(original_unet(network), LDM)
    back = stock.convert_ldm_unet_checkpoint(dict(checkpoint), dict(network.config))  # type: ignore[arg-type]
    assert shapes(back) == shapes(network.state_dict())
    encoders: dict[str, Tensor] = {}
    if version == "xl_base":
        second = empty_component_of_transformers(SD / folder, "text_encoder_2")
        encoders = below(original_open_clip(second), "conditioner.embedders.1.model.")
    assert stock.infer_diffusers_model_type({**checkpoint, **encoders}) == version


def empty_component_of_transformers(folder: Path, name: str) -> dict[str, Tensor]:
    """A text encoder's tensors without memory, by its published configuration."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder / name)
    with torch.device("meta"):
        return getattr(transformers, config.architectures[0])(config).state_dict()


@pytest.mark.parametrize(
    ("folder", "version"), [("sd3", "sd3"), ("sd35-medium", "sd35_medium"), ("sd35-large-turbo", "sd35_large")]
)
def test_a_full_size_transformer_of_sd3_is_known_and_converted_back(folder: str, version: str) -> None:
    network = empty_component(SD3 / folder, "transformer")
    checkpoint = below(original_sd3(network), LDM)
    assert stock.infer_diffusers_model_type(checkpoint) == version
    back = stock.convert_sd3_transformer_checkpoint_to_diffusers(dict(checkpoint))
    assert shapes(back) == shapes(network.state_dict())


@pytest.mark.parametrize(("folder", "version"), [("flux", "flux-dev"), ("flux-schnell", "flux-schnell")])
def test_a_full_size_transformer_of_flux_is_known_and_converted_back(folder: str, version: str) -> None:
    network = empty_component(FLUX / folder, "transformer")
    checkpoint = original_flux(network)
    assert stock.infer_diffusers_model_type(checkpoint) == version
    back = stock.convert_flux_transformer_checkpoint_to_diffusers(dict(checkpoint))
    assert shapes(back) == shapes(network.state_dict())


@pytest.mark.parametrize("folder", ["sd15", "sdxl"])
def test_a_full_size_autoencoder_is_converted_back(folder: str) -> None:
    network = empty_component(SD / folder, "vae")
    theirs = original_autoencoder(network.state_dict())
    back = stock.convert_ldm_vae_checkpoint(below(theirs, "first_stage_model."), dict(network.config))  # type: ignore[arg-type]
    assert shapes(back) == shapes(network.state_dict())
    assert theirs["decoder.mid.attn_1.q.weight"].shape[2:] == (1, 1)
    assert "encoder.down.0.downsample.conv.weight" in theirs and "decoder.up.3.upsample.conv.weight" in theirs


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline"])
def test_the_stock_pipeline_reads_every_number_of_one_file(name: str, tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "twin")
    checkpoint = original_checkpoint(folder, family_of(folder), torch.float32)
    save_file(checkpoint.tensors, tmp_path / "one.safetensors")
    kind: Any = getattr(diffusers, name)
    plain = kind.from_pretrained(folder)
    given = {component: getattr(plain, component) for component in checkpoint.beside}
    assert given.keys() == (
        {"text_encoder"} if "3" in name else set()
    )  # whose twin projects, where published ones do not
    read = kind.from_single_file(
        str(tmp_path / "one.safetensors"), config=str(folder), local_files_only=True, torch_dtype=torch.float32, **given
    )
    for component in ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        own = getattr(plain, component, None)
        if own is not None:
            theirs = getattr(read, component).state_dict()
            assert own.state_dict().keys() == theirs.keys()
            assert all(torch.equal(tensor, theirs[key]) for key, tensor in own.state_dict().items()), component


def test_flux_keeps_every_number_in_its_place(tmp_path: Path) -> None:
    """diffusers' converter cuts single blocks at the published width, so that rows are added up to it and cut again."""
    folder = write_twin("FluxPipeline", tmp_path / "twin")
    network = load_component(folder, "transformer")
    own = network.state_dict()
    checkpoint = original_flux(network)
    inner = network.config.num_attention_heads * network.config.attention_head_dim
    for kind in ("weight", "bias"):
        name = f"single_blocks.0.linear1.{kind}"
        parts = checkpoint[name].split((inner, inner, inner, 4 * inner))
        wide = [
            torch.cat([part, part.new_zeros(width - len(part), *part.shape[1:])])
            for part, width in zip(parts, (3072, 3072, 3072, 4 * 3072), strict=True)
        ]
        checkpoint[name] = torch.cat(wide)
    back = stock.convert_flux_transformer_checkpoint_to_diffusers(dict(checkpoint))
    assert back.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(back[name][: len(tensor)], tensor), name


def test_pixart_goes_to_its_published_names_and_back(tmp_path: Path) -> None:
    for size in (8, 128):  # of the second the transformer takes an image's size
        folder = write_twin("PixArtAlphaPipeline", tmp_path / f"twin-{size}", sample_size=size)
        network = load_component(folder, "transformer")
        published = to_published_names(network)
        assert published["pos_embed"].shape == (1, (size // 2) ** 2, network.inner_dim)
        assert ("ar_embedder.mlp.0.weight" in published) == (size == 128)
        back = from_published_names(published)
        assert back is not None and back.keys() == network.state_dict().keys()
        assert all(torch.equal(tensor, back[name]) for name, tensor in network.state_dict().items())


def test_a_full_size_pixart_is_converted_back() -> None:
    network = empty_component(dipp_pixart.CONFIGS, "transformer")
    back = from_published_names(to_published_names(network))
    assert back is not None and shapes(back) == shapes(network.state_dict())


def test_a_layer_without_an_original_name_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = write_twin("StableDiffusionPipeline", tmp_path / "lcm", time_cond_proj_dim=8)
    with pytest.raises(RequestError, match=r"time_embedding\.cond_proj\.weight.*--to lora"):
        original_checkpoint(folder, family_of(folder), torch.float32)


def test_names_are_replaced_by_whole_words() -> None:
    assert replaced("norm1.weight", {"norm1": "in_layers.0"}) == "in_layers.0.weight"
    assert replaced("norm10.weight", {"norm1": "in_layers.0"}) == "norm10.weight"
    assert replaced("a.to_out.0.bias", {"to_out.0": "proj", "to_out": "wrong"}) == "a.proj.bias"


def test_clip_of_any_transformers_has_the_names_that_checkpoints_have() -> None:
    tensor = torch.zeros(1)
    for name in ("embeddings.token_embedding.weight", "text_model.embeddings.token_embedding.weight"):
        assert list(original_clip({name: tensor})) == ["text_model.embeddings.token_embedding.weight"]
    assert list(original_clip({"text_projection.weight": tensor})) == ["text_projection.weight"]
