"""A run's generator as a checkpoint of one file, in the names of the code that its model was published with."""

from __future__ import annotations

from pathlib import Path

import torch

from ...models.original_layout.checkpoint import Checkpoint, original_checkpoint
from ...training.publish import call_arguments
from ...utils.atomic import write_tensors
from .result import Export
from .round_trip import single_file_check
from .subject import ExportSubject

HEADER = {"format": "pt"}


def export_single_file(subject: ExportSubject, file: Path, dtype: torch.dtype, *, check: bool = True) -> Export:
    """Write the checkpoint.

    Args:
        subject: the run's generator; an adapter is in its weights already.
        file: where to, in a folder that exists.
        dtype: of its weights.
        check: whether it is read back.

    Raises:
        RequestError: the family knows no such layout, or the network has layers that it has no name for.
    """
    checkpoint = original_checkpoint(subject.folder, subject.family, dtype)
    write_tensors(file, checkpoint.tensors, HEADER)
    beside = tuple(checkpoint.beside)
    done = single_file_check(subject, file, beside, dtype) if check else None
    numbers = {"tensors": len(checkpoint.tensors), "beside": list(beside)}
    return Export({file: "the checkpoint"}, notes_of(checkpoint, subject), done, numbers)


def notes_of(checkpoint: Checkpoint, subject: ExportSubject) -> list[str]:
    """What whoever loads a checkpoint brings, in sentences."""
    notes = [
        f"The {name} {reason}: take it from {subject.folder / name}." for name, reason in checkpoint.beside.items()
    ]
    notes += [
        f"diffusers leaves T5 from one file in training mode, so that it draws at random: call pipeline.{name}.eval()."
        for name in checkpoint.t5
    ]
    call = ", ".join(
        f"{name}={value!r}" for name, value in call_arguments(subject.folder, subject.generator.steps).items()
    )
    return [*notes, f"It is sampled with the scheduler in {subject.folder / 'scheduler'} and {call}."]
