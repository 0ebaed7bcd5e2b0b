"""`fit_reward`: a reward from votes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..preferences.fit.run import FitResult
from ..preferences.fit.run import fit_reward as fit
from ..preferences.fit.trainer import FitSettings
from ..preferences.loading import load_comparisons
from ..preferences.pair import Comparison
from ..utils.device import choose_device
from ..utils.messages import unknown_name
from ..utils.paths import user_path
from ..utils.python_words import python_words


def fit_reward(
    votes: str | Path | Sequence[Comparison],
    out: str | Path,
    *,
    backbone: str,
    ensemble: int = 1,
    held_out: float = 0.2,
    seed: int = 0,
    device: str = "auto",
    **settings: Any,
) -> FitResult:
    """Fit a reward to votes, as `dipp reward fit` does; needs TRL.

    `train(rewards=[str(result.folder)])` trains with it.

    Args:
        votes: a place as `dipp reward fit --pairs` takes it, or comparisons.
        out: the reward's folder.
        backbone: a reward's name or a folder whose network is fitted.
        ensemble: members, whose disagreement is the doubt that monitors watch.
        held_out: the share of prompts that is held out.
        seed: of the split and of the fit.
        device: as in the settings.
        settings: of the fit, by the names of `FitSettings`.

    Returns:
        The folder, the agreement with votes on prompts held out, and what `fit.json` says.

    Raises:
        RequestError: there are too few votes, the backbone is none, or an option is out of range.
    """
    with python_words():
        known = FitSettings.__dataclass_fields__
        for name in settings:
            if name not in known:
                raise RequestError(unknown_name("setting of a fit", name, known))
        comparisons = load_comparisons(str(votes)) if isinstance(votes, str | Path) else votes
        return fit(
            comparisons,
            user_path(out),
            backbone=backbone,
            settings=FitSettings(**settings),
            ensemble=ensemble,
            held_out=held_out,
            seed=seed,
            device=choose_device(device),
        )
