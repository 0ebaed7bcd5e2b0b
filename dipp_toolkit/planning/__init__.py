"""`dipp plan`: what a run will need, before a byte is downloaded."""

from .estimate import Plan, make_plan, recommend
from .scaling import Scale, ScaledPlan, scaled_plan

__all__ = ["Plan", "Scale", "ScaledPlan", "make_plan", "recommend", "scaled_plan"]
