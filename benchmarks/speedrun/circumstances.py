"""What processor seconds depend on beside the settings: the machine's kind, the libraries, and the code of a step."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from dipp_toolkit.utils.content_digests import file_digest
from dipp_toolkit.utils.fingerprint import digest_of, software

ROOT = Path(__file__).parents[2]
ROOMS = ("diffusion", "distributed", "models", "objective", "prompts", "rewards", "training", "utils")
"""Rooms of the toolkit whose code a training step runs."""


def machine() -> dict[str, Any]:
    """The machine's kind, and the versions that its seconds depend on."""
    versions = {name: version for name, version in software().items() if name != "dipp-toolkit"}
    return {
        "cpu": f"{platform.machine()} CPU with {torch.backends.cpu.get_cpu_capability()}",
        "cores": os.cpu_count(),
        **versions,
        "code": training_code(),
    }


def training_code() -> str:
    """A digest of the sources that a training of an emoji world runs."""
    rooms = [ROOT / "dipp_toolkit" / room for room in ROOMS]
    sources = [*sorted((ROOT / "plugins" / "dipp_emoji").glob("*.py"))]
    sources += [source for room in rooms for source in sorted(room.rglob("*.py"))]
    return digest_of([[source.relative_to(ROOT).as_posix(), file_digest(source)] for source in sources])[:16]
