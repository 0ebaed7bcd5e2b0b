"""Rewards that were fitted to votes: the folder that `dipp reward fit` writes, as a reward."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register
from dipp_toolkit.rewards.fitted_folders import FITTED


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        FITTED,
        "dipp_fitted.reward:Fitted",
        summary="a reward fitted to votes by dipp reward fit; --reward FOLDER is the same",
        needs=("peft", "torchvision", "transformers"),
    )
