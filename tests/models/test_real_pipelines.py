"""Tiny twins of every supported pipeline class: sampled, trained and exported on the real code path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from dipp_cli.actions.generate import GenerateRequest, make_images
from dipp_cli.app import main
from dipp_toolkit import load_reference
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.guidance_embedding import told_guidance
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.stock_call import stock_call_of
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.protocols import Reference
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.publish import call_arguments
from forked import python
from tiny import PROMPTS

CLASSES = tuple(get_registry().entries["pipeline"])
BLUE = "def blue(images, prompts):\n    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))\n"

# What somebody without this toolkit runs: it must not even be importable.
PLAIN = """
import json, sys
sys.modules["dipp_toolkit"] = None
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
folder, given, out, call, *prompts = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(folder)
images = pipeline(prompt=prompts, latents=load_file(given)["noise"], output_type="pt", **json.loads(call)).images
save_file({"images": images.contiguous()}, out)
"""


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("twins")
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    (root / "blue.py").write_text(BLUE)
    return {name: write_twin(name, root / name) for name in CLASSES}


def stock(folder: Path, noise: Tensor, steps: int, guidance: float) -> Tensor:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    own, call = stock_call_of(family_of(folder)), call_arguments(folder, steps)
    if guidance > 1:
        call |= own.guidance_arguments(guidance, len(PROMPTS))
    return pipeline(prompt=list(PROMPTS), latents=own.given_latents(noise), output_type="pt", **call).images


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_sampling_equals_the_stock_pipeline(twins: dict[str, Path], name: str, guidance: float, noise: Tensor) -> None:
    family = family_of(twins[name])
    if guidance != 1 and not (told_guidance(family) is None and stock_call_of(family).second_pass):
        pytest.skip("its pipelines are guided by an input of the network")
    reference = load_reference(f"diffusers:{twins[name]}")
    assert isinstance(reference, Reference)
    noise = fixed_noise(len(PROMPTS), reference.latent_shape, 3)
    ours = reference.decode(reference.sample(reference.encode(PROMPTS), noise, 6, guidance))
    theirs = stock(twins[name], noise, 6, guidance)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (theirs[0] - theirs[1]).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_run_leaves_what_plain_diffusers_draws_like_dipp_generate(
    twins: dict[str, Path], name: str, mode: str, tmp_path: Path
) -> None:
    root, folder = twins[name].parent, f"diffusers:{twins[name]}"
    words = [
        "train", "--generator", folder, "--reference", folder, "--reward", f"{root / 'blue.py'}:blue", "--prompts",
        str(root / "prompts.txt"), "--steps", "5", "--batch-size", "2", "--out", str(tmp_path / "run"), "--device",
        "cpu", "--mode", mode, "--set", "lora_rank=4", "--set", "learning_rate=1e-3", "--set", "eval_count=2",
        "--set", "reference_steps=2", "--set", "guidance=2", "--set", "readout=1.0", "--quiet",
    ]  # fmt: skip
    assert main(words) == 0
    final = tmp_path / "run" / "final"
    assert (final / "adapter" / "adapter_model.safetensors").is_file() == (mode == "lora")
    network = family_of(final).network_name
    before, after = (load_file(next((place / network).glob("*.safetensors"))) for place in (twins[name], final))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)

    request = GenerateRequest(generator=str(tmp_path / "run"), prompt=PROMPTS, seed=5, device="cpu")
    _, ours, _ = make_images(request)
    noise = fixed_noise(len(PROMPTS), load_reference(str(twins[name])).latent_shape, 5)
    save_file({"noise": stock_call_of(family_of(final)).given_latents(noise)}, tmp_path / "noise.safetensors")
    call = json.dumps(call_arguments(final, 1))
    plain = python(PLAIN, final, tmp_path / "noise.safetensors", tmp_path / "plain.safetensors", call, *PROMPTS)
    assert plain.wait() == 0, plain.stderr[-3000:]
    theirs = load_file(tmp_path / "plain.safetensors")["images"]
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours[0] - ours[1]).abs().max() > 1e-3
