"""dipp-toolkit: align one-step text-to-image generators with human preferences by Diff-Instruct++.

Everything public is importable from here. Names are loaded when they are first used, so that importing the package (as
every plugin does) costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import DippError, Interrupted, RequestError, RunError
from .hooks import hookimpl
from .utils import moved
from .utils.version import VERSION

if TYPE_CHECKING:
    from . import verify
    from .api.bench import BenchResult, bench
    from .api.fit import fit_reward
    from .api.generate import generate
    from .api.plan import plan
    from .api.score import Scores, score
    from .api.train import train
    from .config import TrainConfig
    from .diffusion.condition import Condition
    from .diffusion.denoiser import Denoiser
    from .diffusion.schedules import FlowMatching, TrigFlow, VariancePreserving, add_noise
    from .diffusion.times import UniformTimes
    from .evaluation.loading import load_metric
    from .models.loading import load_generator, load_reference
    from .models.own_network import OwnGenerator, own_generator
    from .models.own_reference import OwnReference, own_reference
    from .objective.base import Sample, Term, TermContext, TermResult
    from .objective.build import build_term
    from .objective.evaluate import WeightedTerm, evaluate_objective
    from .objective.terms.reward import RewardTerm
    from .prompts.loading import load_prompts
    from .protocols import CostMetric, Generator, ImageSource, Metric, Prompt, PromptSet, Reference, Reward
    from .rewards.loading import load_reward
    from .training.assistant import LearnedAssistant
    from .training.engine import Engine
    from .training.run_result import RunResult

__version__ = VERSION
moved.install()

_LAZY = {
    "BenchResult": "api.bench",
    "Condition": "diffusion.condition",
    "CostMetric": "protocols",
    "Denoiser": "diffusion.denoiser",
    "Engine": "training.engine",
    "FlowMatching": "diffusion.schedules",
    "Generator": "protocols",
    "ImageSource": "protocols",
    "LearnedAssistant": "training.assistant",
    "Metric": "protocols",
    "OwnGenerator": "models.own_network",
    "OwnReference": "models.own_reference",
    "Prompt": "protocols",
    "PromptSet": "protocols",
    "Reference": "protocols",
    "Reward": "protocols",
    "RewardTerm": "objective.terms.reward",
    "RunResult": "training.run_result",
    "Sample": "objective.base",
    "Scores": "api.score",
    "Term": "objective.base",
    "TermContext": "objective.base",
    "TermResult": "objective.base",
    "TrainConfig": "config",
    "TrigFlow": "diffusion.schedules",
    "UniformTimes": "diffusion.times",
    "VariancePreserving": "diffusion.schedules",
    "WeightedTerm": "objective.evaluate",
    "add_noise": "diffusion.schedules",
    "bench": "api.bench",
    "build_term": "objective.build",
    "evaluate_objective": "objective.evaluate",
    "fit_reward": "api.fit",
    "generate": "api.generate",
    "load_generator": "models.loading",
    "load_metric": "evaluation.loading",
    "load_prompts": "prompts.loading",
    "load_reference": "models.loading",
    "load_reward": "rewards.loading",
    "own_generator": "models.own_network",
    "own_reference": "models.own_reference",
    "plan": "api.plan",
    "score": "api.score",
    "train": "api.train",
}

__all__ = [
    "BenchResult",
    "Condition",
    "CostMetric",
    "Denoiser",
    "DippError",
    "Engine",
    "FlowMatching",
    "Generator",
    "ImageSource",
    "Interrupted",
    "LearnedAssistant",
    "Metric",
    "OwnGenerator",
    "OwnReference",
    "Prompt",
    "PromptSet",
    "Reference",
    "RequestError",
    "Reward",
    "RewardTerm",
    "RunError",
    "RunResult",
    "Sample",
    "Scores",
    "Term",
    "TermContext",
    "TermResult",
    "TrainConfig",
    "TrigFlow",
    "UniformTimes",
    "VariancePreserving",
    "WeightedTerm",
    "__version__",
    "add_noise",
    "bench",
    "build_term",
    "evaluate_objective",
    "fit_reward",
    "generate",
    "hookimpl",
    "load_generator",
    "load_metric",
    "load_prompts",
    "load_reference",
    "load_reward",
    "own_generator",
    "own_reference",
    "plan",
    "score",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "verify":  # a room that can be called
        return import_module(f".{name}", __name__)
    if name not in _LAZY:
        raise AttributeError(f"module 'dipp_toolkit' has no attribute '{name}'")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
