"""Emoji worlds side by side on one leaderboard."""

from __future__ import annotations

from pathlib import Path

from benchmarks.emoji_leaderboard.run import RUNS, entries_of, runs_of
from dipp_toolkit.experiments.bench.entries import parse_entries


def test_each_world_has_its_reference_its_start_and_its_runs_under_labels_of_their_own(tmp_path: Path) -> None:
    for folder in runs_of("emoji", tmp_path).values():
        folder.mkdir()
    one = entries_of(["emoji"], tmp_path)
    assert [entry.label for entry in parse_entries(one, {})] == ["emoji-reference", "emoji-onestep", *RUNS]
    runs = [f"emoji-unet-{name}={tmp_path / f'emoji-unet-{name}'}" for name in RUNS]
    both = ",".join([one, "emoji-unet-reference", "emoji-unet-onestep", *runs])
    assert entries_of(["emoji", "emoji-unet"], tmp_path) == both
