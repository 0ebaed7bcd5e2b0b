"""What `dipp reward fit` does: load votes, fit a reward to them, and say how well it agrees with others."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...terminal.output import print_line


def fit_by_name(
    pairs: str, backbone: str, out: Path, device: str, *, ensemble: int, held_out: float, seed: int, **settings: Any
) -> dict[str, Any]:
    """Fit a reward to the votes of a place.

    Args:
        pairs: as `load_comparisons` takes it.
        backbone: as `find_backbone` takes it.
        out: the reward's folder.
        device: as `choose_device` takes it.
        ensemble: members.
        held_out: the share of prompts that is held out.
        seed: of the split and of the fit.
        settings: of `FitSettings`.

    Returns:
        `folder`, and what its `fit.json` says.

    Raises:
        RequestError: there are too few votes, the backbone is none, or an option is out of range.
    """
    from dipp_toolkit.preferences.fit.run import fit_reward
    from dipp_toolkit.preferences.fit.trainer import FitSettings
    from dipp_toolkit.preferences.loading import load_comparisons
    from dipp_toolkit.utils.device import choose_device
    from dipp_toolkit.utils.paths import user_path

    result = fit_reward(
        load_comparisons(pairs),
        user_path(out),
        backbone=backbone,
        settings=FitSettings(**settings),
        ensemble=ensemble,
        held_out=held_out,
        seed=seed,
        device=choose_device(device),
        progress=lambda words: print_line(f"{words[0].upper()}{words[1:]} ...", file=sys.stderr),
    )
    return {"folder": str(out), **result.facts}


def describe(result: Mapping[str, Any]) -> None:
    """Print how well it agrees, and what to type next."""
    votes, held, own = (result[name] for name in ("votes", "held_out", "voters_agreement"))
    left = ", ".join(f"{votes[what]} {what}" for what in ("ties", "repeats") if votes[what])
    print_line(
        f"Fitted to {votes['fitted']} votes on {votes['prompts_fitted']} prompts"
        f"{f' ({left} left out)' if left else ''}."
    )
    if held is None:
        print_line("Nothing was held out, so it was not measured.")
    else:
        print_line(
            f"It agrees with {_percent(held['accuracy'])} of {held['votes']} votes on {held['prompts']} prompts held "
            "out."
        )
    if own is not None:
        print_line(f"Voters who were asked again agree with themselves on {_percent(own)}.")
    print_line(f"Next: dipp train --reward {result['folder']}")


def _percent(interval: Mapping[str, float]) -> str:
    mean, low, high = (100 * interval[end] for end in ("mean", "low", "high"))
    return f"{mean:.0f} % [{low:.0f}, {high:.0f}]"
