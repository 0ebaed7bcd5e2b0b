"""The speedrun: processor seconds from the distilled start until the teacher is beaten, for settings of anybody's.

    python benchmarks/speedrun/run.py --config mine.yaml
    python benchmarks/speedrun/run.py --config mine.yaml --world emoji-unet --record

Trains the world's distilled generator with the settings in `mine.yaml`, three seeds, and looks at each every two
updates until the judge's mean is above the 50-step teacher's interval, naming is at 97 % and nine tenths of the start's
diversity are left; then the shipped default on the same machine, unless it has run already. `README.md` has the rules.
Run it again after an interruption: it goes on. The teacher is measured once, where nothing recorded has today's key, by
some 90,000 passes of its network. `--record` appends an entry that reached all targets to `records.jsonl` and writes
`results.md` anew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.speedrun.circumstances import machine
from benchmarks.speedrun.race import Outcome, race
from benchmarks.speedrun.records import HERE, RECORDS, keep, ratio, record_of, worst, write_table
from benchmarks.speedrun.rules import EVERY, SEEDS, Entry, World
from benchmarks.speedrun.targets import Stand, Targets
from dipp_toolkit import DippError
from dipp_toolkit.errors import Interrupted
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.fingerprint import digest_of


def place_of(entry: Entry, world: World, targets: Targets, work: Path) -> Path:
    """The folder of an entry's runs: another one for other settings, threads, targets, code or kinds of machine."""
    key = digest_of([entry.resolved(world), entry.threads, targets.as_dict(), EVERY, machine()])
    return work / world.name / key[:12]


def run_seed(entry: Entry, world: World, seed: int, folder: Path, targets: Targets) -> None:
    """One seed, in a process of its own."""
    torch.set_num_threads(entry.threads)
    try:
        config = entry.config(world, seed, folder)
        race(config, folder, Stand.of(world).look, targets, lambda text: print(text, flush=True))
    except DippError as error:
        sys.exit(str(error))


def in_own_process(entry: Entry, world: World, seed: int, folder: Path, targets: Targets) -> None:
    """Run a seed in a fresh process, so that none finds another's imports, compilations or memory.

    Raises:
        SystemExit: it was interrupted, or failed.
    """
    os.environ["OMP_NUM_THREADS"] = str(entry.threads)
    # Compilers are waited for and find nothing of other runs, so that all of their time is seen.
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str((folder / "compiled").resolve())
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run_seed, args=(entry, world, seed, folder, targets))
    process.start()
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        process.join()
    except KeyboardInterrupt:  # the other process has heard it as well, and saves
        process.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    if process.exitcode:
        raise SystemExit(f"Seed {seed} of {entry.name} did not come to its end; the same command goes on with it.")


def run_entry(entry: Entry, world: World, seeds: int, work: Path, targets: Targets) -> list[Outcome]:
    """All seeds of an entry; none after one that did not reach the targets."""
    place = place_of(entry, world, targets, work)
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / "entry.yaml", entry.text)
    outcomes: list[Outcome] = []
    for seed in range(seeds):
        folder = place / f"seed-{seed}"
        in_own_process(entry, world, seed, folder, targets)
        outcome = Outcome.of(folder, seed)
        assert outcome is not None
        outcomes.append(outcome)
        if not outcome.reached:
            break
    return outcomes


def told(entry: Entry, outcomes: list[Outcome]) -> str:
    """What came of an entry, in a sentence."""
    reached = worst(outcomes)
    if reached is None:
        last = outcomes[-1]
        return (
            f"{entry.name}: seed {last.seed} did not reach all targets at one of its looks in {last.updates} updates."
        )
    return f"{entry.name}: {reached['seconds']:.1f} processor seconds, {reached['updates']} updates (the slowest seed)."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=HERE / "entries" / "default.yaml", help="the entry's settings")
    parser.add_argument("--world", default="emoji", help="emoji or emoji-unet")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs; a record needs all three")
    parser.add_argument("--threads", type=int, default=1, help="threads of the entry; the default has one")
    parser.add_argument("--work", type=Path, default=Path("runs/speedrun"), help="folder for runs and targets")
    parser.add_argument("--record", action="store_true", help="append the entry to the record if it reached all")
    parser.add_argument("--table-only", action="store_true", help="write results.md from records.jsonl, and stop")
    arguments = parser.parse_args()
    if arguments.table_only:
        write_table()
        return
    try:
        outcome = enter(arguments)
    except (DippError, Interrupted) as error:
        sys.exit(str(error))
    sys.exit(outcome)


def enter(arguments: argparse.Namespace) -> int:
    """Run an entry and the default beside it; 0 where the entry reached its targets and 1 elsewhere."""
    world = World.named(arguments.world)
    entry = Entry.read(arguments.config, arguments.threads)
    default = Entry.read(HERE / "entries" / "default.yaml")
    entry.check(world)
    targets = Stand.of(world).targets(arguments.work, [HERE / RECORDS])
    outcomes = run_entry(entry, world, arguments.seeds, arguments.work, targets)
    print(told(entry, outcomes))
    if worst(outcomes) is None:
        return 1
    others = run_entry(default, world, arguments.seeds, arguments.work, targets)
    print(told(default, others))
    share = ratio(outcomes, others)
    if share is not None:
        print(f"{entry.name} took {share:.2f} of the default's processor seconds.")
    if arguments.record:
        keep(record_of(entry, world, outcomes, others, targets), arguments.config)
        print("Recorded. Put the table into the page with: python tools/build_tables.py")
    return 0


if __name__ == "__main__":
    main()
