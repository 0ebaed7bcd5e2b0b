"""dipp-toolkit: align one-step text-to-image generators with human preferences by Diff-Instruct++.

Everything public is importable from here. Names are loaded when they are first used, so that importing the package (as
every plugin does) costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DippError, RequestError, RunError
from .hooks import hookimpl
from .utils.version import VERSION

if TYPE_CHECKING:
    from .condition import Condition
    from .config import TrainConfig
    from .denoiser import Denoiser
    from .evaluation.loading import load_metric
    from .model_loading import load_generator, load_reference
    from .prompt_loading import load_prompts
    from .rewards.loading import load_reward
    from .roles import CostMetric, Generator, ImageSource, Metric, Prompt, PromptSet, Reference, Reward
    from .terms.base import Sample, Term, TermContext, TermResult
    from .training import train

__version__ = VERSION

_LAZY = {
    "Condition": "condition",
    "CostMetric": "roles",
    "Denoiser": "denoiser",
    "Generator": "roles",
    "ImageSource": "roles",
    "Metric": "roles",
    "Prompt": "roles",
    "PromptSet": "roles",
    "Reference": "roles",
    "Reward": "roles",
    "Sample": "terms.base",
    "Term": "terms.base",
    "TermContext": "terms.base",
    "TermResult": "terms.base",
    "TrainConfig": "config",
    "load_generator": "loading",
    "load_metric": "loading",
    "load_prompts": "loading",
    "load_reference": "loading",
    "load_reward": "loading",
    "train": "training",
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
