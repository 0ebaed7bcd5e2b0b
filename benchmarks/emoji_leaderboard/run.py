"""A leaderboard of emoji worlds: the reference, the distilled generator, an alignment, and one made to cheat.

    python benchmarks/emoji_leaderboard/run.py --work runs/emoji-leaderboard
    python benchmarks/emoji_leaderboard/run.py --world emoji emoji-unet

The cheat maximises `emoji-preference` alone with nothing to hold it (reward_scale 100,000, 120 steps); the monitors
have to flag it, and must not flag the alignment with the recommended settings. Several worlds, `WORLD-reference` and
`WORLD-onestep`, stand side by side: they have the same prompts, rewards and judge. Everything is resumed where it was
stopped. Writes `results.jsonl` (the rows, for `dipp leaderboard`) and `results.md` beside this file, and the page into
the work folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dipp_toolkit import TrainConfig, train
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.experiments.bench.rows import write_rows
from dipp_toolkit.experiments.bench.run import run_bench
from dipp_toolkit.experiments.bench.settings import METRICS, BenchSettings
from dipp_toolkit.experiments.leaderboard.board import make_board
from dipp_toolkit.experiments.leaderboard.markdown import to_markdown
from dipp_toolkit.experiments.leaderboard.page import write_page
from dipp_toolkit.utils.atomic import write_text

HERE = Path(__file__).parent
FIRST = "emoji"
"""The world whose runs go by their own names; those of another begin with its name."""
RUNS: dict[str, dict[str, Any]] = {
    "aligned": {},
    "cheat": {
        "rewards": {"emoji-preference": 1.0},
        "reward_scale": 1e5,
        "learning_rate": 2e-4,
        "steps": 120,
        "monitor_every": 30,
        "monitor_rewards": ("emoji-clip",),
    },
}


def runs_of(world: str, work: Path) -> dict[str, Path]:
    """The folders of a world's runs, by label."""
    labels = [name if world == FIRST else f"{world}-{name}" for name in RUNS]
    return {label: work / label for label in labels}


def entries_of(worlds: Sequence[str], work: Path) -> str:
    """What the bench compares, as `dipp bench --generators` takes it."""
    named = []
    for world in worlds:
        runs = (f"{label}={folder}" for label, folder in runs_of(world, work).items())
        named += [f"{world}-reference", f"{world}-onestep", *runs]
    return ",".join(named)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/emoji-leaderboard"), help="folder for runs and images")
    parser.add_argument("--world", nargs="+", default=[FIRST], help="worlds: emoji, emoji-unet")
    parser.add_argument("--seeds", type=int, default=3, help="noises of every prompt")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results.jsonl and results.md")
    arguments = parser.parse_args()

    for world in arguments.world:
        for settings, folder in zip(RUNS.values(), runs_of(world, arguments.work).values(), strict=True):
            if not (folder / "summary.json").exists():
                out = {"generator": f"{world}-onestep", "out": folder, "resume": (folder / "config.yaml").exists()}
                train(TrainConfig(**settings, **out))
    rows = run_bench(
        BenchSettings(
            entries=tuple(parse_entries(entries_of(arguments.world, arguments.work), {})),
            prompts="emoji-heldout",
            rewards=("emoji-preference", "emoji-clip"),
            judges=("emoji-judge",),
            metrics=(*METRICS, "emoji-frechet"),
            seeds=tuple(range(1, arguments.seeds + 1)),
            out=arguments.work / "bench",
            pictures=6,
            command=f"python benchmarks/emoji_leaderboard/run.py --seeds {arguments.seeds}"
            + (f" --world {' '.join(arguments.world)}" if arguments.world != [FIRST] else ""),
        )
    )
    board = make_board(rows)
    # The name of a machine's kernel says nothing that versions and processor do not.
    for row in rows:
        row.environment.pop("platform", None)
    write_rows(arguments.out / "results.jsonl", rows)
    write_text(arguments.out / "results.md", to_markdown(board))
    print(to_markdown(board))
    print(
        write_page(
            board,
            arguments.work / "leaderboard.html",
            "The emoji world" if len(arguments.world) == 1 else "The emoji worlds",
        )
    )


if __name__ == "__main__":
    main()
