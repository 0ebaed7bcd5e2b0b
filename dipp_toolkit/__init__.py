"""dipp-toolkit: align one-step text-to-image generators with human preferences by Diff-Instruct++.

Everything public is importable from here. Names are loaded when they are first used, so that importing the package (as
every plugin does) costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DippError, RequestError, RunError
from .hooks import hookimpl
from .utils import moved
from .utils.version import VERSION

if TYPE_CHECKING:
    from .config import TrainConfig
    from .diffusion.condition import Condition
    from .diffusion.denoiser import Denoiser
    from .evaluation.loading import load_metric
    from .models.loading import load_generator, load_reference
    from .objective.base import Sample, Term, TermContext, TermResult
    from .prompts.loading import load_prompts
    from .protocols import CostMetric, Generator, ImageSource, Metric, Prompt, PromptSet, Reference, Reward
    from .rewards.loading import load_reward
    from .training.run import train

__version__ = VERSION
moved.install()

_LAZY = {
    "Condition": "diffusion.condition",
    "CostMetric": "protocols",
    "Denoiser": "diffusion.denoiser",
    "Generator": "protocols",
    "ImageSource": "protocols",
    "Metric": "protocols",
    "Prompt": "protocols",
    "PromptSet": "protocols",
    "Reference": "protocols",
    "Reward": "protocols",
    "Sample": "objective.base",
    "Term": "objective.base",
    "TermContext": "objective.base",
    "TermResult": "objective.base",
    "TrainConfig": "config",
    "load_generator": "models.loading",
    "load_metric": "evaluation.loading",
    "load_prompts": "prompts.loading",
    "load_reference": "models.loading",
    "load_reward": "rewards.loading",
    "train": "training.run",
}

__all__ = [
    "Condition",
    "CostMetric",
    "Denoiser",
    "DippError",
    "Generator",
    "ImageSource",
    "Metric",
    "Prompt",
    "PromptSet",
    "Reference",
    "RequestError",
    "Reward",
    "RunError",
    "Sample",
    "Term",
    "TermContext",
    "TermResult",
    "TrainConfig",
    "__version__",
    "hookimpl",
    "load_generator",
    "load_metric",
    "load_prompts",
    "load_reference",
    "load_reward",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'dipp_toolkit' has no attribute '{name}'")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
