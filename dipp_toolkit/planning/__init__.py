"""`dipp plan`: what a run will need, before a byte is downloaded."""

from .estimate import Plan, make_plan
from .recommend import recommend

__all__ = ["Plan", "make_plan", "recommend"]
