"""What to tell a user whose run ended early: what is saved, and the command that resumes it."""

from __future__ import annotations

import shlex
from pathlib import Path

from ...errors import RequestError
from .checkpoint import checkpoint_step, checkpoints
from .run_folder import RunFolder, is_unbegun


def resumed(folder: Path) -> str:
    """The command that goes on with the run in a folder, as a sentence."""
    return f"Go on with: dipp train --resume --out {shlex.quote(str(folder))}"


def way_back(folder: Path) -> str:
    """How to go on after a failure, which removes a folder that it leaves without a step."""
    try:
        unbegun = is_unbegun(folder)
    except RequestError:  # it cannot be read now
        unbegun = False
    return "Run the same command again." if unbegun else resumed(folder)


def saved(run: RunFolder) -> str:
    """Which step a run goes on from, as a sentence."""
    whole = checkpoints(run.checkpoints)
    if not whole:
        return "No step was saved yet."
    step = checkpoint_step(whole[-1])
    return f"Step {step} is saved." if step else "The assistant's warm-up is saved as far as it came."
