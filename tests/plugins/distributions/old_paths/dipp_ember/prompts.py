"""A prompt set."""

from __future__ import annotations

from dipp_toolkit.prompt_files import PromptList
from dipp_toolkit.roles import Prompt


def two() -> PromptList:
    return PromptList("ember-prompts", [Prompt("a red cat"), Prompt("the blue sea")])
