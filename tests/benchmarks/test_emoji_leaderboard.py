"""Emoji worlds side by side on one leaderboard."""

from __future__ import annotations

from pathlib import Path

from benchmarks.emoji_leaderboard.run import RUNS, entries_of


def test_each_world_has_its_reference_its_start_and_its_runs_under_labels_of_their_own() -> None:
    work = Path("work")
    one = entries_of(["emoji"], work)
    assert one.split(",") == ["emoji-reference", "emoji-onestep", *(f"{name}={work / name}" for name in RUNS)]
    runs = [f"emoji-unet-{name}={work / f'emoji-unet-{name}'}" for name in RUNS]
    assert entries_of(["emoji", "emoji-unet"], work) == ",".join(
        [one, "emoji-unet-reference", "emoji-unet-onestep", *runs]
    )
