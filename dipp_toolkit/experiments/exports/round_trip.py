"""The same noise through a run's own generator, and through stock diffusers with what was exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.family import PublishedNames
from ...models.files.folders import quiet_loading
from ...models.files.weight_files import weights_in
from ...models.reference import DiffusersReference
from ...models.sampling import fixed_noise
from ...models.sized import decoder_beside
from ...training.publish import call_arguments, load_arguments
from ...utils.json_files import read_json
from ...utils.tensor_files import read_state
from ..acceptance.plain_pipeline import plain_image, plain_pipeline
from .result import LARGEST, Check
from .subject import ExportSubject

SEED = 7
CPU = torch.device("cpu")
NARROW = ("F16", "BF16")
"""Of safetensors' words for dtypes."""
FLUX_WIDTH = 3072
"""The only one that diffusers' converter of Flux's single blocks knows."""


def lora_check(subject: ExportSubject, folder: Path, exact: bool) -> Check:
    """The base with a LoRA that was written, by diffusers' `load_lora_weights`, or by peft where diffusers has none.

    Args:
        subject: what was exported.
        folder: the LoRA's.
        exact: whether it holds all that the training changed, in float32.
    """
    kind = subject.pipeline_class
    with_loader = hasattr(kind, "load_lora_weights")

    def load() -> Any:
        pipeline = plain_pipeline(subject.folder, torch.float32, CPU, subject.start)
        with quiet_loading():
            if with_loader:
                pipeline.load_lora_weights(str(folder))
                return pipeline
            from peft import PeftModel

            network: Any = PeftModel.from_pretrained(getattr(pipeline, subject.component), str(folder))
            setattr(pipeline, subject.component, network.merge_and_unload())
        return pipeline

    how = f"loaded by {kind.__name__}.load_lora_weights" if with_loader else "loaded by peft's PeftModel"
    return _compared(subject, load, how, LARGEST if exact and _is_float32(subject) else None)


def single_file_check(subject: ExportSubject, file: Path, beside: tuple[str, ...], dtype: torch.dtype) -> Check:
    """A checkpoint of one file, by diffusers' `from_single_file`, or by the family's converter where it has none.

    Args:
        subject: what was exported.
        file: the checkpoint.
        beside: components that are not in it.
        dtype: of its weights.
    """
    kind = subject.pipeline_class
    network = read_json(subject.folder / subject.component / "config.json")
    limit = LARGEST if dtype == torch.float32 else None
    if isinstance(subject.family, PublishedNames):

        def load() -> Any:
            pipeline = plain_pipeline(subject.folder, torch.float32, CPU)
            renamed = subject.family.from_published_names(read_state(file))  # type: ignore[attr-defined]
            getattr(pipeline, subject.component).load_state_dict({name: t.float() for name, t in renamed.items()})
            return pipeline

        return _compared(subject, load, "read by the toolkit's own converter, since diffusers has none", limit)
    if not hasattr(kind, "from_single_file"):
        return Check("", reason=f"diffusers' {kind.__name__} loads no checkpoint of one file.")
    if "Flux" in kind.__name__ and (width := _width(network)) != FLUX_WIDTH:
        return Check("", reason=f"diffusers reads Flux's own layout at a width of {FLUX_WIDTH} alone, not of {width}.")

    def load_file() -> Any:
        lacking = load_arguments(subject.folder)
        given = {}
        if beside:
            whole = plain_pipeline(subject.folder, torch.float32, CPU)
            given = {name: getattr(whole, name) for name in beside}
        with quiet_loading():
            pipeline = kind.from_single_file(
                str(file), config=str(subject.folder), local_files_only=True, torch_dtype=torch.float32,
                **lacking, **given,
            )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.eval()  # diffusers 0.42 leaves a T5 from one file in training mode, with dropout
        return pipeline

    return _compared(subject, load_file, f"loaded by {kind.__name__}.from_single_file", limit)


def _width(network: Mapping[str, Any]) -> int:
    """Of a Flux transformer, by its configuration."""
    return int(network.get("num_attention_heads", 24)) * int(network.get("attention_head_dim", 128))


def _compared(subject: ExportSubject, load: Callable[[], Any], how: str, limit: float | None) -> Check:
    """The largest difference of a pixel between what a pipeline draws and the run's generator."""
    noise = fixed_noise(1, subject.generator.latent_shape, SEED)
    ours = _own_image(subject, noise)
    call = call_arguments(subject.folder, subject.generator.steps)
    theirs = plain_image(load(), subject.folder, subject.prompt, noise, call)
    return Check(how, float((ours - theirs).abs().max()), limit)


@torch.no_grad()
def _own_image(subject: ExportSubject, noise: Tensor) -> Tensor:
    reference = decoder_beside(DiffusersReference.load(str(subject.folder)), subject.generator)
    condition = reference.encode([subject.prompt])
    subject.generator.network.eval()
    image: Tensor = reference.decode(subject.generator.generate(noise, condition))
    return image.float()


def _is_float32(subject: ExportSubject) -> bool:
    """Whether the merged weights are in float32; otherwise they were rounded as they were merged."""
    from safetensors import safe_open

    place = subject.folder / subject.component
    weights = weights_in(place)
    for name in () if weights is None else weights.files:
        with safe_open(place / name, "pt") as opened:
            if any(opened.get_slice(key).get_dtype() in NARROW for key in opened.keys()):  # noqa: SIM118
                return False
    return True
