"""LoRA files that cannot be fused whole are refused in a sentence, and leave nothing behind."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor

import lora_files
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.start_weights import source
from dipp_toolkit.models.start_weights.lora import fused_weights
from lora_files import peft_folder, random_pairs, twins_below, write

COMPONENTS = {
    "PixArtAlphaPipeline": "transformer",
    "StableDiffusionPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "StableDiffusion3Pipeline": "transformer",
    "FluxPipeline": "transformer",
}
PIXART, SD, SDXL, SD3, FLUX = COMPONENTS
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return twins_below(tmp_path_factory.mktemp("twins"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def network_of(folder: Path) -> Any:
    return getattr(DiffusionPipeline.from_pretrained(folder), COMPONENTS[folder.name])


def fused(folder: Path, *addresses: str) -> Path:
    component = COMPONENTS[folder.name]
    return fused_weights(folder, component, folder / component, addresses)


def refusal(folder: Path, *addresses: str) -> str:
    """What is said; one sentence or a few without line breaks, and nothing is kept."""
    with pytest.raises(RequestError) as caught:
        fused(folder, *addresses)
    text = str(caught.value)
    assert "\n" not in text
    kept = (Path(os.environ["DIPP_CACHE"]) / "converted").glob("*")
    assert not [item for item in kept if not item.name.endswith(".lock")]
    return text


def saved(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> str:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return str(path)


@pytest.mark.parametrize(
    ("made_for", "put_on", "layout", "says"),
    [
        (
            SD,
            SDXL,
            lora_files.kohya,
            r"does not fit UNet2DConditionModel: of the \d+ layers .* \d+ are not there, such as down",
        ),
        (
            SDXL,
            SD,
            lora_files.diffusers,
            r"\d+ have other shapes, such as mid_block.*: \(4, 16\) and \(16, 4\) in the file",
        ),
        (SDXL, SD3, lora_files.kohya, r"does not fit SD3Transformer2DModel: .* kohya's keys are not converted"),
        (
            SD3,
            SD,
            lora_files.diffusers,
            r"does not fit UNet2DConditionModel: of the 33 layers .* 33 are not there",
        ),
        (
            SD,
            FLUX,
            lora_files.kohya,
            r"cannot convert the keys of the LoRA .*, such as lora_unet_.*, for a FluxPipeline",
        ),
        (SD, PIXART, lora_files.kohya, r"does not fit PixArtTransformer2DModel: .* kohya's keys are not converted"),
    ],
)
def test_a_lora_of_another_architecture_is_refused(
    twins: Callable[[str], Path], tmp_path: Path, made_for: str, put_on: str, layout: Any, says: str
) -> None:
    pairs = random_pairs(network_of(twins(made_for)), 4, r"^(?!add_embedding)")
    path = write(tmp_path / "lora.safetensors", layout, pairs, 4.0, COMPONENTS[made_for])
    text = refusal(twins(put_on), str(path))
    assert re.search(says, text), text


def sd_tensors(twins: Callable[[str], Path], pattern: str = "attn") -> Tensors:
    pairs = random_pairs(network_of(twins(SD)), 4, pattern)
    return lora_files.kohya(pairs, 4.0, "unet")[0]


def without_half(tensors: Tensors) -> None:
    del tensors[next(key for key in tensors if key.endswith("lora_up.weight"))]


def other_shape(tensors: Tensors) -> None:
    tensors[next(key for key in tensors if key.endswith("lora_up.weight"))] = torch.ones(3, 4)


def other_layer(tensors: Tensors) -> None:
    tensors |= {f"lora_unet_nowhere_to_q.lora_{half}.weight": torch.ones(4, 4) for half in ("down", "up")}


def lonely_alpha(tensors: Tensors) -> None:
    tensors["lora_unet_nowhere.alpha"] = torch.tensor(1.0)


def broad_alpha(tensors: Tensors) -> None:
    tensors[next(key for key in tensors if key.endswith("alpha"))] = torch.ones(2)


def not_finite(tensors: Tensors) -> None:
    next(iter(tensors.values()))[0] = torch.nan


def text_encoder(tensors: Tensors) -> None:
    layer = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    tensors |= {f"{layer}.lora_{half}.weight": torch.ones(4, 4) for half in ("down", "up")}


def bias(tensors: Tensors) -> None:
    tensors["lora_unet_conv_in.diff_b"] = torch.ones(8)


def hadamard(tensors: Tensors) -> None:
    tensors["lora_unet_conv_in.hada_w1_a"] = torch.ones(8, 4)


def kronecker(tensors: Tensors) -> None:
    tensors["lora_unet_conv_in.lokr_w1"] = torch.ones(8, 4)


def magnitudes(tensors: Tensors) -> None:
    tensors["lora_unet_conv_in.dora_scale"] = torch.ones(8, 4)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (without_half, "is incomplete: of 1 layers it has one half of the pair alone, such as lora_unet_"),
        (other_shape, "1 have other shapes, such as down_blocks.0"),
        (other_layer, "1 are not there, such as nowhere"),
        (lonely_alpha, "it has lora_unet_nowhere.alpha, and no layer of that name"),
        (broad_alpha, "of shape (2,); expected a number"),
        (not_finite, "has numbers that are not finite"),
        (text_encoder, "changes text encoders too (2 keys such as lora_te_text_model"),
        (bias, "1 tensors that are not parts of a LoRA, such as lora_unet_conv_in.diff_b of shape (8,)"),
        (hadamard, "is a LoHa (1 keys such as lora_unet_conv_in.hada_w1_a)"),
        (kronecker, "is a LoKr"),
        (magnitudes, "is a DoRA in kohya's layout"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_file_that_cannot_be_fused_whole_is_refused(
    twins: Callable[[str], Path], tmp_path: Path, harm: Callable[[Tensors], None], says: str
) -> None:
    tensors = sd_tensors(twins)
    harm(tensors)
    text = refusal(twins(SD), saved(tmp_path / "lora.safetensors", tensors))
    assert says in text, text


def test_parts_that_do_nothing_are_left_out(twins: Callable[[str], Path], tmp_path: Path) -> None:
    tensors = sd_tensors(twins)
    plain = fused(twins(SD), saved(tmp_path / "1.safetensors", tensors))
    text_encoder(tensors)
    bias(tensors)
    for key, tensor in tensors.items():
        if key.startswith("lora_te") or key.endswith("diff_b"):
            tensor.zero_()
    again = fused(twins(SD), saved(tmp_path / "2.safetensors", tensors))
    assert again != plain
    first, second = (load_file(item / "diffusion_pytorch_model.safetensors") for item in (plain, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_what_is_not_a_lora_is_refused(twins: Callable[[str], Path], tmp_path: Path) -> None:
    folder = twins(SD)
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert "is not a LoRA: none of its" in refusal(folder, str(whole))
    (tmp_path / "text.safetensors").write_text("no tensors")
    assert "text.safetensors" in refusal(folder, str(tmp_path / "text.safetensors"))
    assert "is not a LoRA" in refusal(folder, saved(tmp_path / "empty.safetensors", {"nothing": torch.zeros(1)}))
    torch.save({"lora": Runs()}, tmp_path / "code.bin")
    assert "could run code" in refusal(folder, str(tmp_path / "code.bin"))
    assert "is not there" in refusal(folder, str(tmp_path / "missing.safetensors"))
    assert "has no LoRA file of a usual name" in refusal(folder, str(tmp_path))


class Runs:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return (print, ("it ran",))


def test_a_repository_that_cannot_be_reached_is_not_said_to_lack_a_file(
    twins: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = httpx.Request("GET", "https://huggingface.co")
    for error, says in (
        (LocalEntryNotFoundError("offline"), "is not in the hub's cache, and the hub cannot be reached"),
        (
            RemoteEntryNotFoundError("no such file", response=httpx.Response(404, request=request)),
            "'a/b' has no LoRA file of a usual name (pytorch_lora_weights.safetensors or adapter_model.safetensors); "
            "name the file, as in a/b:file.safetensors",
        ),
    ):

        def fetch(hub: str, inside: str, error: Exception = error) -> Path:
            raise error

        monkeypatch.setattr(source, "hub_file", fetch)
        assert says in refusal(twins(SD), "a/b=0.5")


@pytest.mark.parametrize("scale", ["", "strong", "nan", "inf"])
def test_a_scale_that_is_not_a_number_is_refused(twins: Callable[[str], Path], scale: str) -> None:
    with pytest.raises(RequestError, match=r"has the scale '.*'; expected a number, such as lora\.safetensors=0\.125"):
        fused(twins(SD), f"lora.safetensors={scale}")


def test_a_text_encoders_lora_alone_is_refused(twins: Callable[[str], Path], tmp_path: Path) -> None:
    tensors: Tensors = {}
    text_encoder(tensors)
    assert "changes text encoders" in refusal(twins(SD), saved(tmp_path / "lora.safetensors", tensors))


def test_peft_files_need_their_configuration(twins: Callable[[str], Path], tmp_path: Path) -> None:
    folder = twins(SD3)
    adapter = peft_folder(tmp_path / "adapter", random_pairs(network_of(folder), 4, "attn"), 8.0)
    config = adapter / "adapter_config.json"
    settings = json.loads(config.read_text())
    for changes, says in (
        ({"peft_type": "LOHA"}, "describes an adapter of the kind 'LOHA'; expected a LoRA"),
        ({"use_dora": True}, "describes an adapter of the kind 'DoRA'"),
        ({"r": 5}, "says r=5 and lora_alpha=8.0 of"),
        ({"lora_alpha": "much"}, "lora_alpha='much'"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "as its alpha_pattern; expected names of layers"),
        ({"rank_pattern": [4]}, "as its rank_pattern; expected names of layers"),
    ):
        config.write_text(json.dumps(settings | changes))
        assert says in refusal(folder, str(adapter))
    config.unlink()
    assert "whose strength is in adapter_config.json, and there is none beside it" in refusal(folder, str(adapter))


def test_damaged_metadata_is_refused(twins: Callable[[str], Path], tmp_path: Path) -> None:
    folder = twins(SD3)
    tensors, _ = lora_files.diffusers(random_pairs(network_of(folder), 4, "attn"), 8.0, "transformer")
    for text in ("{", "[]", "1"):
        path = saved(tmp_path / "lora.safetensors", tensors, {"lora_adapter_metadata": text})
        assert "has a damaged lora_adapter_metadata in its header" in refusal(folder, path)


def test_what_is_kept_is_found_again_by_content(twins: Callable[[str], Path], tmp_path: Path) -> None:
    folder, tensors = twins(SD), sd_tensors(twins)
    path = saved(tmp_path / "lora.safetensors", tensors)
    first = fused(folder, path)
    stamp = first.stat().st_mtime_ns
    moved = saved(tmp_path / "moved.safetensors", tensors)
    assert fused(folder, moved) == first
    assert first.stat().st_mtime_ns == stamp
    assert fused(folder, f"{path}=1.0") == first
    others = {fused(folder, f"{path}=0.5"), fused(folder, path, path)}
    tensors[next(key for key in tensors if key.endswith("up.weight"))] += 1
    others.add(fused(folder, saved(tmp_path / "lora.safetensors", tensors)))
    assert len(others - {first}) == 3


def test_a_failure_on_the_way_leaves_nothing(
    twins: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    path = saved(tmp_path / "lora.safetensors", sd_tensors(twins))

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffusers.UNet2DConditionModel.save_pretrained", full)
    assert "No space left on device" in refusal(twins(SD), path)
