"""A run's generator for ComfyUI: weights in the folders of its `models/`, and workflows of its stock nodes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ...errors import RequestError
from ...models.comfyui.facts import ComfyModel
from ...models.comfyui.lora import comfy_lora
from ...models.comfyui.sigmas import ComfyNoise, comfy_noise
from ...models.comfyui.workflow import ComfyFiles, for_page, for_server, make_workflow
from ...models.family import InComfyUI
from ...models.lora import read_adapter
from ...models.original_layout.checkpoint import (
    AUTOENCODER,
    autoencoder_tensors,
    encoder_tensors,
    original_checkpoint,
    original_family,
)
from ...utils.atomic import whole_folder, write_tensors
from ...utils.json_files import read_json
from .result import Check, Export
from .round_trip import single_file_check
from .single_file import HEADER
from .subject import ExportSubject

BASE = "base.safetensors"
"""The checkpoint that a workflow with a LoRA loads until somebody chooses another one."""


def export_comfyui(
    subject: ExportSubject, folder: Path, dtype: torch.dtype, *, name: str, check: bool = True
) -> Export:
    """Write what ComfyUI loads, to be copied over its folder, and workflows to be opened in it.

    Args:
        subject: the run's generator.
        folder: where to; it does not exist.
        dtype: of the weights.
        name: of the files.
        check: whether the checkpoint is read back by diffusers.

    Raises:
        RequestError: ComfyUI has no such model, or no stock node gives its sampler the generator's noise levels.
    """
    model, noise = comfy_model(subject)
    vae = read_json(subject.folder / "vae" / "config.json")
    checkpoint = original_checkpoint(subject.folder, subject.family, dtype)
    own_files = model.clip_type is not None
    network = f"models/{'diffusion_models' if own_files else 'checkpoints'}/{name}.safetensors"
    tensors: dict[str, dict[str, Tensor]] = {network: checkpoint.tensors}
    files = {network: "the transformer" if own_files else "the checkpoint"}
    loaded = ComfyFiles(f"{name}.safetensors")
    has_vae = read_json(subject.folder / "model_index.json")["vae"][1] == AUTOENCODER
    if own_files:
        loaded = ComfyFiles(loaded.checkpoint, f"{name}_t5xxl.safetensors", f"{name}_vae.safetensors")
        text = f"models/text_encoders/{loaded.text_encoder}"
        tensors[text], files[text] = encoder_tensors(subject.folder, "text_encoder", "t5", dtype), "the text encoder"
        if has_vae:
            place = f"models/vae/{loaded.vae}"
            tensors[place], files[place] = autoencoder_tensors(subject.folder, "", dtype), "the autoencoder"
    workflows = {f"{name}": loaded}
    if subject.adapter is not None:
        place = f"models/loras/{name}_lora.safetensors"
        config, state = read_adapter(subject.adapter)
        tensors[place] = comfy_lora(state, config.lora_alpha, config.r, subject.component, model.kohya, dtype)
        files[place] = "the LoRA alone"
        lora = f"{name}_lora.safetensors"
        workflows[f"{name}_lora"] = ComfyFiles(BASE, loaded.text_encoder, loaded.vae, lora)
    with whole_folder(folder) as beside:
        for place, content in tensors.items():
            (beside / place).parent.mkdir(parents=True, exist_ok=True)
            write_tensors(beside / place, content, HEADER)
        for title, wanted in workflows.items():
            nodes = make_workflow(
                model, noise, wanted, size=subject.size, prompt=subject.prompt, name=name,
                latent_factor=model.latent_factor(vae),
            )  # fmt: skip
            for place, content, what in (
                (f"{title}.json", for_page(nodes), "the workflow for ComfyUI's page"),
                (f"{title}_api.json", for_server(nodes), "the same for its server"),
            ):
                (beside / place).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
                files[place] = what
    notes = _notes(model, noise, has_vae, subject)
    done: Check | None = None
    if check:
        done = single_file_check(subject, folder / network, tuple(checkpoint.beside), dtype)
    numbers = {"sigmas": list(noise.sigmas), "first": noise.first, "sampler": noise.sampler}
    return Export({folder / place: what for place, what in files.items()}, notes, done, numbers)


def comfy_model(subject: ExportSubject) -> tuple[ComfyModel, ComfyNoise]:
    """What ComfyUI makes of a generator, and how it makes its image.

    Raises:
        RequestError: see `export_comfyui`.
    """
    original_family(subject.family, subject.folder)
    if not isinstance(subject.family, InComfyUI):
        name = read_json(subject.folder / "model_index.json").get("_class_name")
        raise RequestError(f"The plugin of {name} does not say how ComfyUI loads it. Use --to single-file.")
    model = subject.family.comfyui(subject.folder)
    return model, comfy_noise(subject.generator, model)


def _notes(model: ComfyModel, noise: ComfyNoise, has_vae: bool, subject: ExportSubject) -> list[str]:
    start = "" if noise.first is None else f", from noise times {noise.first:.5g} (AddNoise)"
    notes = [f"The workflow samples with sigmas {noise.text} by {noise.sampler}{start}."]
    if model.unknown:
        notes.append(
            f"ComfyUI will not recognise these weights: {model.unknown}. The files have the layout of those that it "
            "does."
        )
    if not has_vae:
        notes.append("The autoencoder is not an AutoencoderKL, which ComfyUI's loaders expect, and is left out.")
    if subject.adapter is not None:
        notes.append(f"The LoRA's workflow loads the base as {BASE}: choose yours in its first node.")
    return [
        *notes,
        *model.differs,
        "ComfyUI itself was not run: its nodes' formulas are restated in the toolkit's tests.",
    ]
