"""A reference, a generator and a blueprint."""

from __future__ import annotations

from dipp_toolkit.blueprints import PipelineBlueprint, RewardBlueprint
from dipp_toolkit.diffusers_generator import DiffusersGenerator
from dipp_toolkit.diffusers_reference import DiffusersReference
from dipp_toolkit.few_steps import FewStepGenerator
from dipp_toolkit.loading import load_generator, load_reference
from dipp_toolkit.published import SETTINGS, PublishedGenerator, PublishedReference, register_models
from dipp_toolkit.schedules import FlowMatching, schedule_from_config

__all__ = [
    "SETTINGS", "DiffusersGenerator", "DiffusersReference", "FewStepGenerator", "FlowMatching", "PipelineBlueprint",
    "PublishedGenerator", "PublishedReference", "register_models", "schedule_from_config",
]  # fmt: skip


def reference(folder: str) -> DiffusersReference:
    made = load_reference(folder)
    assert isinstance(made, DiffusersReference)
    return made


def generator(folder: str) -> DiffusersGenerator:
    made = load_generator(folder)
    assert isinstance(made, DiffusersGenerator)
    return made


def blueprint() -> RewardBlueprint:
    from .reward import Warmth

    return RewardBlueprint("somebody/ember", Warmth)
