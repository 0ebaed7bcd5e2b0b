"""The six-dimensional world as a Python file that `train()` takes every part of by name, and the rows that come of it.

A run is given `world.py:reference`, `world.py:generator`, `world.py:assistant`, `world.py:reward` and
`world.py:PROMPTS` of a file of a few lines, as anybody's own world would be given to it, and nothing else: settings are
resolved, the folder of the run is written, and the law that is compared is that of the generator in its `final/`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ...config import TrainConfig, make_config
from ...objective.gaussians import QuadraticReward
from ...training.run import train
from ..rows import VerifyRow
from ..world import AffineGenerator
from .train_cases import TRAIN_CASES, TrainCase
from .world import PROMPT, SixReference, make_generator

CASE = "six-train"

TOLERANCE = 0.02
"""Relative, of mean and covariance, as with the learned assistant elsewhere: noises and times are drawn."""

BATCH = 2048

FILE = '''"""A Gaussian world of six dimensions, as dipp verify --thorough writes it."""

from dipp_toolkit.verify import AffineGenerator, ExactAssistant
from dipp_toolkit.verify.thorough.train_world import parts_of

reference, generator, reward = parts_of("{case}")
generator.load_pretrained = AffineGenerator.load_pretrained
assistant = ExactAssistant.beside
PROMPTS = ["{prompt}"]
'''


def parts_of(
    name: str,
) -> tuple[Callable[[], SixReference], Callable[[], AffineGenerator], QuadraticReward | None]:
    """What makes a case's reference and generator, and its reward."""
    setting = TRAIN_CASES[name].setting

    def generator() -> AffineGenerator:
        return make_generator()

    return lambda: setting.reference, generator, setting.reward


def config_of(name: str, case: TrainCase, folder: Path, steps: int | None = None) -> TrainConfig:
    """The settings of a case's run, its world's file written into the folder.

    Args:
        name: of the case.
        case: the training.
        folder: for the file and the run.
        steps: in place of the case's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "world.py"
    file.write_text(FILE.format(case=name, prompt=PROMPT), encoding="utf-8")
    steps = steps or case.steps
    settings = {
        "generator": f"{file}:generator",
        "reference": f"{file}:reference",
        "prompts": f"{file}:PROMPTS",
        "rewards": {} if case.setting.reward is None else {f"{file}:reward": 1.0},
        **({} if case.learned else {"assistant_model": f"{file}:assistant", "assistant_rounds": 0}),
        **({"assistant_learning_rate": 0.01, "assistant_rounds": 2, "assistant_warmup": 50} if case.learned else {}),
        **case.setting.values(),
        "steps": steps, "batch_size": BATCH, "learning_rate": case.rate, "cooldown": 3 * steps // 4, "ema": 0.95,
        "max_grad_norm": 1e6, "precision": "fp32", "device": "cpu", "out": folder / "run",
        "eval_count": 1, "reference_steps": 1, "monitor_every": 0, "diagnose_every": 0,
        "checkpoint_every": steps, "sample_every": steps,
    }  # fmt: skip
    return make_config(settings)


def train_case_rows(name: str, seed: int = 0, steps: int | None = None) -> list[VerifyRow]:
    """Mean and covariance of the generator that a run leaves.

    Args:
        name: of the case.
        seed: of the run.
        steps: in place of the case's.
    """
    case = TRAIN_CASES[name]
    expected = case.optimum(case.setting)
    with tempfile.TemporaryDirectory() as place:
        config = config_of(name, case, Path(place), steps).model_copy(update={"seed": seed})
        run = train(config)
        reached = AffineGenerator.load_pretrained(run.folder / "final").law
    label = f"{case.setting.label} by train()"
    assistant = "learned" if case.learned else "exact"
    return [
        VerifyRow.compare(
            CASE, label, assistant, quantity, getattr(expected, quantity), getattr(reached, quantity), TOLERANCE,
            getattr(case.setting.target, quantity).norm().item(),
        )
        for quantity in ("mean", "covariance")
    ]  # fmt: skip


def train_rows(seed: int = 0) -> list[VerifyRow]:
    """Of every case."""
    return [row for name in TRAIN_CASES for row in train_case_rows(name, seed)]
