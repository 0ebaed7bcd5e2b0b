"""Published prompt sets, pinned to the files that their authors published."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register

if TYPE_CHECKING:
    from dipp_toolkit import PromptSet

SUMMARIES = {
    "parti": "PartiPrompts: 1,632 prompts in 12 categories (Apache 2.0)",
    "geneval": "GenEval: 553 compositional prompts in 6 categories (MIT)",
    "imagereward-benchmark": "ImageReward's benchmark: 100 prompts of DiffusionDB (Apache 2.0)",
    "pickapic-test": "Pick-a-Pic's test prompts as Flow-GRPO uses them: 2,048 (MIT)",
    "hpdv2": "HPDv2's benchmark: 800 prompts in each of 4 styles (name a revision)",
    "drawbench": "DrawBench: 200 prompts in 11 categories",
    "coco-2017": "COCO 2017 validation: the first caption of each of 5,000 images (CC BY 4.0)",
}


@hookimpl
def dipp_register_prompts(register: Register) -> None:
    for name, summary in SUMMARIES.items():
        register(name, partial(_load, name), summary=summary)
    register("hub", _from_hub, summary="a dataset of the hub with a column of prompts: hub?dataset=OWNER/NAME")


def _load(name: str, path: str | None = None, revision: str | None = None) -> PromptSet:
    from .published import load

    return load(name, path, revision)


def _from_hub(dataset: str, split: str = "train", config: str | None = None, revision: str | None = None) -> PromptSet:
    from .published import load_from_hub

    return load_from_hub(dataset, split, config, revision)
