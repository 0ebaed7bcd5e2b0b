"""A run's generator as a LoRA over what it was trained from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import RequestError
from ...models.components import load_component
from ...models.lora import read_adapter, write_adapter
from ...models.lora_difference import lora_difference
from ...utils.atomic import whole_folder
from .result import Export
from .round_trip import lora_check
from .subject import ExportSubject

RANK = 64
"""Of what a training in full changed, where nobody says another."""
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"


def export_lora(
    subject: ExportSubject, folder: Path, dtype: torch.dtype, *, rank: int | None = None, check: bool = True
) -> Export:
    """Write the LoRA as `load_lora_weights` of diffusers and as peft's `PeftModel.from_pretrained` read it.

    Args:
        subject: the run's generator. Of one that was trained with an adapter it is this one; of one that was trained in
            full the best approximation of what changed, see `lora_difference`.
        folder: where to; it does not exist.
        dtype: of its weights.
        rank: of the approximation; `RANK` where None.
        check: whether it is read back.

    Raises:
        RequestError: the adapter is damaged, it has a rank already, or the weights before the training are not here.
    """
    config, tensors, notes, numbers = adapter_of(subject, rank)
    pipeline = subject.pipeline_class
    with_loader = hasattr(pipeline, "save_lora_weights")
    cast = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    with whole_folder(folder) as beside:
        write_adapter(beside, config, cast, pipeline if with_loader else None, subject.component)
    files = {
        folder
        / "adapter_model.safetensors": "the LoRA in peft's layout, with adapter_config.json: PeftModel.from_pretrained"
    }
    if with_loader:
        files = {folder / DIFFUSERS_FILE: "the LoRA: pipeline.load_lora_weights", **files}
    else:
        notes.append(
            f"diffusers' {pipeline.__name__} loads no LoRA files, so there is none in its layout. Put it on the "
            f'{subject.component} with peft: PeftModel.from_pretrained(pipeline.{subject.component}, "{folder}").'
        )
    notes.append(
        f"It goes over the weights that the training began from, with the scheduler in {subject.folder / 'scheduler'}."
    )
    exact = subject.adapter is not None and dtype == torch.float32
    return Export(files, notes, lora_check(subject, folder, exact) if check else None, numbers)


def adapter_of(subject: ExportSubject, rank: int | None) -> tuple[Any, dict[str, Tensor], list[str], dict[str, Any]]:
    """A generator's adapter, or the approximation of what changed in it.

    Returns:
        peft's configuration, the tensors by its names without its prefix, sentences, and numbers for JSON.

    Raises:
        RequestError: see `export_lora`.
    """
    if subject.adapter is not None:
        config, tensors = read_adapter(subject.adapter)
        if rank not in (None, config.r):
            raise RequestError(
                f"The generator was trained with an adapter of rank {config.r}, which is exported as it is. Leave "
                "--rank out."
            )
        return config, tensors, [], {"rank": config.r}
    from peft import LoraConfig

    base = load_component(subject.folder, subject.component, subject.start).state_dict()
    found = lora_difference(load_component(subject.folder, subject.component), base, rank or RANK)
    config = LoraConfig(r=found.rank, lora_alpha=found.rank, target_modules=found.layers)
    notes = [
        f"The generator was trained in full: of what that changed in its layers, a LoRA of rank {found.rank} keeps "
        f"{found.kept:.1%} (of the squares)."
    ]
    if found.outside > 0:
        notes.append(f"{found.outside:.1%} of the change is in biases, norms and other weights, which are in no LoRA.")
    return config, found.tensors, notes, {"rank": found.rank, "kept": found.kept, "outside": found.outside}
