"""Rewards of all images of a prompt at once: where an image stands among them, and how far apart they are."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "group-rank",
        "dipp_groups.standing:GroupRank",
        summary="how probably an image beats another of its prompt, by another reward: of=pickscore",
    )
    register(
        "group-share",
        "dipp_groups.standing:GroupShare",
        summary="the logarithm of how probably it is chosen among those of its prompt: of=pickscore",
    )
    register(
        "group-standard",
        "dipp_groups.standing:GroupStandard",
        summary="another reward's score, standardised within the prompt: of=hps",
    )
    register(
        "group-diversity",
        "dipp_groups.diversity:GroupDiversity",
        summary="how far an image is from the others of its prompt",
    )
