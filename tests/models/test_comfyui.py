"""ComfyUI, whose formulas are restated here from its published source (github.com/comfyanonymous/ComfyUI): not run.

Read: `comfy/model_sampling.py` (EPS, V_PREDICTION, CONST, ModelSamplingDiscrete), `comfy/samplers.py` (max_denoise),
`comfy/k_diffusion/sampling.py` (sample_lcm), `comfy_extras/nodes_custom_sampler.py`,
`comfy_extras/nodes_model_advanced.py`, `comfy_extras/nodes_latent.py`, `comfy_extras/nodes_cond.py`,
`comfy_extras/nodes_flux.py`, `comfy_extras/nodes_pixart.py`, `comfy_extras/nodes_sd3.py`, `nodes.py`, `comfy/lora.py`.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit import RequestError, load_generator
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.models.comfyui.facts import ComfyModel
from dipp_toolkit.models.comfyui.lora import comfy_lora
from dipp_toolkit.models.comfyui.sigmas import ComfyNoise, comfy_noise, comfy_sigmas
from dipp_toolkit.models.comfyui.workflow import ComfyFiles, Node, for_page, for_server, make_workflow
from dipp_toolkit.models.few_steps import noises_of
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.utils.step_settings import Stepping

SD, XL, SD3, FLUX, PIXART = (
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline",
    "PixArtAlphaPipeline",
)  # fmt: skip
CONDITIONING, LATENT = ("CONDITIONING",), ("LATENT",)
NODES: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "CheckpointLoaderSimple": ({"ckpt_name"}, ("MODEL", "CLIP", "VAE")),
    "UNETLoader": ({"unet_name", "weight_dtype"}, ("MODEL",)),
    "CLIPLoader": ({"clip_name", "type", "device"}, ("CLIP",)),
    "VAELoader": ({"vae_name"}, ("VAE",)),
    "LoraLoaderModelOnly": ({"model", "lora_name", "strength_model"}, ("MODEL",)),
    "ModelSamplingDiscrete": ({"model", "sampling", "zsnr"}, ("MODEL",)),
    "T5TokenizerOptions": ({"clip", "min_padding", "min_length"}, ("CLIP",)),
    "CLIPTextEncode": ({"text", "clip"}, CONDITIONING),
    "CLIPTextEncodePixArtAlpha": ({"width", "height", "text", "clip"}, CONDITIONING),
    "FluxGuidance": ({"conditioning", "guidance"}, CONDITIONING),
    "EmptyLatentImage": ({"width", "height", "batch_size"}, LATENT),
    "EmptySD3LatentImage": ({"width", "height", "batch_size"}, LATENT),
    "RandomNoise": ({"noise_seed"}, ("NOISE",)),
    "DisableNoise": (set(), ("NOISE",)),
    "ManualSigmas": ({"sigmas"}, ("SIGMAS",)),
    "BasicGuider": ({"model", "conditioning"}, ("GUIDER",)),
    "KSamplerSelect": ({"sampler_name"}, ("SAMPLER",)),
    "AddNoise": ({"model", "noise", "sigmas", "latent_image"}, LATENT),
    "SamplerCustomAdvanced": ({"noise", "guider", "sampler", "sigmas", "latent_image"}, ("LATENT", "LATENT")),
    "LatentMultiply": ({"samples", "multiplier"}, LATENT),
    "VAEDecode": ({"samples", "vae"}, ("IMAGE",)),
    "SaveImage": ({"images", "filename_prefix"}, ()),
}
"""Inputs and outputs of the nodes as ComfyUI declares them; `CLIPLoader`'s device is optional there."""


def manual_sigmas(text: str) -> list[float]:
    """What `ManualSigmas` reads out of a text."""
    return torch.FloatTensor([float(part) for part in re.findall(r"[-+]?(?:\d*\.*\d+)", text)]).tolist()


class RestatedDiffusion:
    """EPS, V_PREDICTION or X0 over the 1000 noise levels of a model."""

    def __init__(self, model: ComfyModel, sampling: str | None) -> None:
        self.sigmas = comfy_sigmas(model)
        self.prediction = sampling or {"epsilon": "eps", "": "eps"}[model.prediction]

    def start(self, sigma: float, noise: Tensor) -> Tensor:
        largest = float(self.sigmas[-1])
        maximal = math.isclose(largest, sigma, rel_tol=1e-5) or sigma > largest
        return noise * (math.sqrt(1 + sigma**2) if maximal else sigma)

    def renoised(self, sigma: float, noise: Tensor, x0: Tensor) -> Tensor:
        return x0 + sigma * noise

    def given(self, x: Tensor, sigma: float) -> tuple[Tensor, float]:
        time = int((self.sigmas.log() - math.log(sigma)).abs().argmin())
        return x / math.sqrt(sigma**2 + 1), float(time)

    def denoised(self, output: Tensor, x: Tensor, sigma: float) -> Tensor:
        if self.prediction == "x0":
            return output
        if self.prediction == "v_prediction":
            return x / (sigma**2 + 1) - output * sigma / math.sqrt(sigma**2 + 1)
        return x - output * sigma


class RestatedFlow:
    """CONST, whose networks are told a thousand times sigma."""

    def start(self, sigma: float, noise: Tensor) -> Tensor:
        return sigma * noise

    def renoised(self, sigma: float, noise: Tensor, x0: Tensor) -> Tensor:
        return sigma * noise + (1 - sigma) * x0

    def given(self, x: Tensor, sigma: float) -> tuple[Tensor, float]:
        return x, 1000 * sigma

    def denoised(self, output: Tensor, x: Tensor, sigma: float) -> Tensor:
        return x - output * sigma


@torch.no_grad()
def comfy_latents(
    generator: DiffusersGenerator, model: ComfyModel, plan: ComfyNoise, z: Tensor, c: Condition
) -> Tensor:
    """What the workflow's sampler makes of noise, its numbers read as `ManualSigmas` reads them."""
    kind: Any = RestatedFlow() if model.betas is None else RestatedDiffusion(model, plan.sampling)
    sigmas = manual_sigmas(plan.text)
    x = kind.start(sigmas[0], z) if plan.first is None else z * manual_sigmas(f"{plan.first:.7f}")[0]
    between = noises_of(z, len(sigmas) - 2) if len(sigmas) > 2 else []
    for step, (sigma, following) in enumerate(pairwise(sigmas)):
        given, time = kind.given(x, sigma)
        output = generator.family.forward(generator.network, given, torch.tensor(time), c)
        x0 = kind.denoised(output, x, sigma)
        if plan.sampler == "euler":
            x = x + (following - sigma) * (x - x0) / sigma
            continue
        assert plan.sampler == "lcm"
        x = x0 if following == 0 else kind.renoised(following, between[step], x0)
    return x


def facts(generator: DiffusersGenerator) -> tuple[ComfyModel, ComfyNoise]:
    model = generator.family.comfyui(generator.folder)  # type: ignore[attr-defined]
    return model, comfy_noise(generator, model)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("twins")

    def twin(name: str, **options: Any) -> Path:
        folder = root / f"{name}{len(str(options))}{options.get('prediction_type', '')}"
        return folder if folder.exists() else write_twin(name, folder, **options)

    return twin


@pytest.mark.parametrize(
    ("name", "options", "readout", "scale", "steps", "adds_noise"),
    [
        (SD, {}, 625 / 999, "sigma", 1, False),
        (SD, {}, 625 / 999, "unit", 1, True),
        (SD, {}, 1.0, "unit", 1, False),
        (SD, {}, 1.0, "sigma", 1, True),
        (SD, {"prediction_type": "v_prediction"}, 500 / 999, "sigma", 1, False),
        (SD, {}, 1.0, "unit", 4, False),
        (SD, {}, 399 / 999, "unit", 2, True),
        (XL, {}, 399 / 999, "unit", 1, True),
        (XL, {"prediction_type": "sample"}, 1.0, "sigma", 1, True),
        (PIXART, {}, 440 / 999, "sigma", 1, False),
        (PIXART, {}, 400 / 999, "unit", 1, True),
        (SD3, {}, 1.0, "unit", 1, False),
        (SD3, {}, 1.0, "unit", 4, False),
        (FLUX, {}, 1.0, "unit", 1, False),
    ],
)
def test_the_workflows_sampler_makes_the_generators_latents(
    twins: Any, name: str, options: dict[str, Any], readout: float, scale: Any, steps: int, adds_noise: bool
) -> None:
    folder = twins(name, **options)
    generator = DiffusersGenerator.load(str(folder), readout, input_scale=scale).in_steps(steps)
    condition = DiffusersReference.load(str(folder)).encode(["a red cat", "the blue sea"])
    model, plan = facts(generator)
    assert (plan.first is not None) == adds_noise
    noise = fixed_noise(2, generator.latent_shape, 3)
    with torch.no_grad():
        ours = generator.generate(noise, condition)
    theirs = comfy_latents(generator, model, plan, noise, condition)
    assert float((ours - theirs).abs().max() / ours.abs().max()) < 1e-5
    if adds_noise:  # and it matters
        other = comfy_latents(generator, model, replace(plan, first=None), noise, condition)
        assert float((ours - other).abs().max() / ours.abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("name", "scale", "times"),
    [(SD, "unit", "even"), (SD, "sigma", (900.0, 600.0, 100.0)), (SD3, "unit", "stock"), (FLUX, "unit", "even")],
)
def test_so_it_does_without_fresh_noise(twins: Any, name: str, scale: Any, times: Any) -> None:
    folder = twins(name, **({"prediction_type": "v_prediction"} if name == SD else {}))
    loaded = DiffusersGenerator.load(str(folder), input_scale=scale)
    generator = loaded.in_steps(3).with_stepping(Stepping("none", times))
    condition = DiffusersReference.load(str(folder)).encode(["a red cat", "the blue sea"])
    model, plan = facts(generator)
    assert plan.sampler == "euler"
    noise = fixed_noise(2, generator.latent_shape, 3)
    with torch.no_grad():
        ours = generator.generate(noise, condition)
    theirs = comfy_latents(generator, model, plan, noise, condition)
    assert float((ours - theirs).abs().max() / ours.abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["emoji-unet-onestep", "emoji-onestep"])
def test_so_it_does_for_the_emoji_world(name: str) -> None:
    generator = load_generator(name)
    assert isinstance(generator, DiffusersGenerator)
    condition = DiffusersReference.load(str(generator.folder)).encode(["fox on blue"])
    model, plan = facts(generator)
    assert plan.sampling == (None if "unet" in name else "x0")
    noise = fixed_noise(1, generator.latent_shape, 3)
    with torch.no_grad():
        ours = generator.generate(noise, condition)
    theirs = comfy_latents(generator, model, plan, noise, condition)
    assert float((ours - theirs).abs().max()) < 1e-4


def test_other_noise_levels_are_refused(twins: Any) -> None:
    generator = DiffusersGenerator.load(str(twins(SD)), 625 / 999)
    config = {**generator.scheduler_config, "beta_schedule": "squaredcos_cap_v2"}
    with pytest.raises(RequestError, match=r"timestep 625.*ComfyUI's nearest time.*--to single-file"):
        facts(replace(generator, scheduler_config=config))


def linked(nodes: list[Node]) -> None:
    """Every node is one of ComfyUI's, is given all that it declares, and is linked to outputs of the right type."""
    for node in nodes:
        inputs, outputs = NODES[node.kind]
        assert {*node.inputs, *node.widgets} == inputs, node.kind
        assert node.gives == outputs
        for name, source in node.inputs.items():
            kind = nodes[source.node].gives[source.output]
            word = {"latent_image": "LATENT", "samples": "LATENT", "images": "IMAGE"}.get(name, name.upper())
            assert kind == word, (node.kind, name)


@pytest.mark.parametrize("name", [SD, XL, SD3, FLUX, PIXART])
@pytest.mark.parametrize("lora", [None, "it_lora.safetensors"])
def test_workflows_are_of_stock_nodes_with_all_their_inputs(twins: Any, name: str, lora: str | None) -> None:
    folder = twins(name)
    generator = DiffusersGenerator.load(str(folder), 1.0 if name in (SD3, FLUX) else 400 / 999)
    model, plan = facts(generator)
    text = "it_t5xxl.safetensors" if model.clip_type else None
    files = ComfyFiles("it.safetensors", text, "it_vae.safetensors" if text else None, lora)
    nodes = make_workflow(model, plan, files, size=(512, 768), prompt="a cat", name="it", latent_factor=0.7)
    linked(nodes)
    kinds = [node.kind for node in nodes]
    assert ("LoraLoaderModelOnly" in kinds) == (lora is not None)
    assert ("FluxGuidance" in kinds) == (name == FLUX)
    assert ("UNETLoader" in kinds) == (name == PIXART)
    assert kinds[-1] == "SaveImage"
    served = for_server(nodes)
    sampler = next(node for node in served.values() if node["class_type"] == "SamplerCustomAdvanced")
    assert served[sampler["inputs"]["sigmas"][0]]["inputs"]["sigmas"] == plan.text
    latent = next(node for node in served.values() if node["class_type"].startswith("Empty"))
    assert (latent["inputs"]["height"], latent["inputs"]["width"]) == (512, 768)


def test_the_page_has_the_same_links_as_the_server(twins: Any) -> None:
    generator = DiffusersGenerator.load(str(twins(XL)), 399 / 999)
    nodes = make_workflow(
        *facts(generator), ComfyFiles("it.safetensors"), size=(16, 16), prompt="a cat", name="it", latent_factor=None
    )
    page, served = for_page(nodes), for_server(nodes)
    by_id = {node["id"]: node for node in page["nodes"]}
    links = {link[0]: link for link in page["links"]}
    for number, node in served.items():
        shown = by_id[int(number)]
        assert shown["type"] == node["class_type"]
        wired = {name: value for name, value in node["inputs"].items() if isinstance(value, list)}
        assert {entry["name"] for entry in shown["inputs"]} == set(wired)
        for slot, entry in enumerate(shown["inputs"]):
            _, origin, output, target, at, kind = links[entry["link"]]
            assert [str(origin), output] == wired[entry["name"]] and (target, at) == (shown["id"], slot)
            given = by_id[origin]["outputs"][output]
            assert entry["link"] in given["links"] and given["type"] == entry["type"] == kind
    noise = next(node for node in page["nodes"] if node["type"] == "RandomNoise")
    assert noise["widgets_values"] == [0, "fixed"]
    places = [tuple(node["pos"]) for node in page["nodes"]]
    assert len(set(places)) == len(places)


def test_loras_have_the_keys_that_comfyui_looks_for() -> None:
    state = {"a.attn1.to_q.lora_A.weight": torch.ones(2, 3), "a.attn1.to_q.lora_B.weight": torch.ones(4, 2)}
    unet = comfy_lora(state, 6.0, 2, "unet", True, torch.float32)
    assert set(unet) == {"lora_unet_a_attn1_to_q.lora_down.weight", "lora_unet_a_attn1_to_q.lora_up.weight"}
    assert float(unet["lora_unet_a_attn1_to_q.lora_up.weight"][0, 0]) == 3.0
    other = comfy_lora(state, 6.0, 2, "transformer", False, torch.float16)
    assert set(other) == {"transformer.a.attn1.to_q.lora_A.weight", "transformer.a.attn1.to_q.lora_B.weight"}
    assert other["transformer.a.attn1.to_q.lora_A.weight"].dtype == torch.float16
