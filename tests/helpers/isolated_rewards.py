"""Rewards for tests of rewards elsewhere: exact ones, and ones that misbehave as the prompt tells them to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch


def blue(images, prompts):
    """Blue beyond red and green, more for longer prompts."""
    red, green, blue = images.sigmoid().mean((2, 3)).unbind(1)
    lengths = torch.tensor([float(len(prompt)) for prompt in prompts], device=images.device)
    return (blue - (red + green) / 2) * lengths


def through_numpy(images, prompts):
    """Has no gradient and does not say so."""
    return np.asarray(images).mean((1, 2, 3))


class Moody:
    """Does what the first prompt says."""

    differentiable = True

    def __init__(self, factor: float = 1.0, file: str = "", fail: str = ""):
        self.factor = factor
        self.file = Path(file)
        self.here = "cpu"
        if fail == "raise":
            raise ValueError("no such weights")
        if fail == "die":
            print("cannot go on", file=sys.stderr)
            os._exit(4)

    def to(self, device):
        self.here = device
        return self

    def __call__(self, images, prompts):
        scores = blue(images, prompts) * self.factor
        match prompts[0].split():
            case ["print"]:
                print("x" * 100_000)
                os.write(1, b"\x00\x01 raw bytes \xff")
            case ["die"]:
                print("Traceback: \x1b[31mout of luck\nfor good", file=sys.stderr)
                os._exit(3)
            case ["die-once"] if not self.file.exists():
                self.file.touch()
                os.kill(os.getpid(), 9)
            case ["hang"]:
                if self.file.name:
                    child = subprocess.Popen(["sleep", "600"])
                    beside = self.file.with_suffix(".partial")
                    beside.write_text(f"{os.getpid()} {child.pid}")
                    beside.replace(self.file)
                time.sleep(60)
            case ["raise"]:
                raise ValueError("a bad\nprompt")
            case ["nan"]:
                return scores * float("nan")
            case ["column"]:
                return scores[:, None]
            case ["detached"]:
                return scores.detach()
        return scores
