"""What a run leaves is drawn by plain diffusers, by commands alone and where the toolkit cannot be imported.

That every class is sampled, trained and exported as its stock pipeline does it is `family_contract.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dipp_cli.actions.generate import GenerateRequest, make_images
from dipp_cli.app import main
from dipp_toolkit import load_reference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.tiny_pipelines import write_twin
from forked import python
from tiny import PROMPTS

CLASSES = ("StableDiffusionPipeline", "FluxPipeline")
"""One of images and one of tokens."""
NETWORK = {"StableDiffusionPipeline": "unet"}
BLUE = "def blue(images, prompts):\n    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))\n"

# What somebody without this toolkit runs: it must not even be importable.
PLAIN = """
import sys
sys.modules["dipp_toolkit"] = None
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
folder, given, out, *prompts = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(folder)
noise, guidance, extra = load_file(given)["noise"], 1.0, {}
if "Flux" in type(pipeline).__name__:
    guidance, extra = 3.5, {"height": 16, "width": 16}
    noise = pipeline._pack_latents(noise, *noise.shape)
images = pipeline(
    prompts, latents=noise, num_inference_steps=1, guidance_scale=guidance, output_type="pt", **extra
).images
save_file({"images": images.contiguous()}, out)
"""


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("twins")
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    (root / "blue.py").write_text(BLUE)
    return {name: write_twin(name, root / name) for name in CLASSES}


@pytest.mark.first_case
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
    before = load_file(next((twins[name] / NETWORK.get(name, "transformer")).glob("*.safetensors")))
    after = load_file(next((final / NETWORK.get(name, "transformer")).glob("*.safetensors")))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)

    request = GenerateRequest(generator=str(tmp_path / "run"), prompt=PROMPTS, seed=5, device="cpu")
    _, ours, _ = make_images(request)
    save_file(
        {"noise": fixed_noise(len(PROMPTS), load_reference(str(twins[name])).latent_shape, 5)},
        tmp_path / "noise.safetensors",
    )
    plain = python(PLAIN, final, tmp_path / "noise.safetensors", tmp_path / "plain.safetensors", *PROMPTS)
    assert plain.wait() == 0, plain.stderr[-3000:]
    theirs = load_file(tmp_path / "plain.safetensors")["images"]
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours[0] - ours[1]).abs().max() > 1e-3
