"""Prompts of an acceptance where a name recommends none: 64, in plain words that every text encoder knows."""

from __future__ import annotations

from itertools import product

THINGS = ("a red fox", "an old sailor", "a glass teapot", "a yellow bicycle", "two small dogs", "a wooden house",
    "a bowl of oranges", "a blue butterfly")  # fmt: skip
SCENES = ("in the snow", "on a sandy beach", "in a quiet library", "under a starry sky", "in a green meadow",
    "beside a river", "as an oil painting", "in front of a brick wall")  # fmt: skip

PROMPTS = tuple(f"{thing} {scene}" for thing, scene in product(THINGS, SCENES))
"""The 64 of them."""
