"""Vision-language models as judges, behind any server with OpenAI's chat protocol: black boxes to the trainer."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "judge",
        "dipp_judge.reward:Judge",
        summary="a vision-language model at an OpenAI-style server, judge:http://host:8000/v1?model=NAME; a black box",
        needs=("httpx",),
    )
    register(
        "soft-tifa",
        "dipp_judge.tifa:SoftTifa",
        summary="Soft-TIFA of GenEval 2: how sure a judge is of each part of a prompt, soft-tifa:http://host/v1?model=NAME",
        needs=("httpx",),
    )
