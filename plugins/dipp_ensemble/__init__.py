"""Several rewards as one that doubts itself: what they disagree about counts less."""

from __future__ import annotations

from dipp_toolkit import hookimpl
from dipp_toolkit.hooks import Register


@hookimpl
def dipp_register_rewards(register: Register) -> None:
    register(
        "ensemble",
        "dipp_ensemble.reward:Ensemble",
        summary="several rewards' mean minus their disagreement, which monitors watch: members=hps+imagereward",
    )
