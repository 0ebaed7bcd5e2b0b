"""A plugin of every kind, written when the modules of dipp_toolkit had their first names; nothing here is to be mended.

Registering imports nothing heavy, under the old names as under the new ones.
"""

from __future__ import annotations

from dipp_toolkit import hookimpl, licences
from dipp_toolkit.hooks import Register
from dipp_toolkit.licences import Origin


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    origin = Origin("somebody/ember", licences.APACHE)
    register(
        "ember", "dipp_ember.reward:Ember", summary="red minus blue, in a network", needs=("torch",), origin=origin
    )


@hookimpl
def dipp_register_terms(register: Register) -> None:
    register("ember-distillation", "dipp_ember.term:ScoreDistillation.build", summary="score distillation")


@hookimpl
def dipp_register_metrics(register: Register) -> None:
    register("ember-saturation", "dipp_ember.metric:Saturation", summary="mean saturation")


@hookimpl
def dipp_register_prompts(register: Register) -> None:
    register("ember-prompts", "dipp_ember.prompts:two", summary="two prompts")


@hookimpl
def dipp_register_environments(register: Register) -> None:
    register("ember-original", "dipp_ember.reward:environment", summary="ember's original package")


@hookimpl
def dipp_register_references(register: Register) -> None:
    register("ember-reference", "dipp_ember.pipelines:reference", summary="a tiny pipeline")


@hookimpl
def dipp_register_generators(register: Register) -> None:
    register("ember-onestep", "dipp_ember.pipelines:generator", summary="a tiny pipeline, read out once")


@hookimpl
def dipp_register_pipelines(register: Register) -> None:
    register("EmberPipeline", "dipp_ember.family:EmberFamily", summary="a family of its own")


@hookimpl
def dipp_register_blueprints(register: Register) -> None:
    register("ember", "dipp_ember.pipelines:blueprint", summary="the network of the reward")
