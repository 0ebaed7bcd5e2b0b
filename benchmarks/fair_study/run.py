"""Each sibling of the family at its own best scale and guidance, by one search budget, in pieces over many machines.

    python benchmarks/fair_study/run.py --minutes 50
    python benchmarks/fair_study/run.py --world emoji-unet --minutes 50
    python benchmarks/fair_study/run.py --only backwards --share 0/2
    python benchmarks/fair_study/run.py --page

First the start and the teacher are judged, and each sibling's anchor is measured; then settings are searched
(`search.py`: one grid for all, chosen by prompts, noises and a seed that nothing is reported of); then the chosen
settings are trained with three seeds for 40 updates, and for as many as take equal time, and judged on the held-out
prompts. The last runs ask why distillation went backwards at guidance 1 (`--only backwards` does these alone). In a
second world the three best are compared.

A run takes 2 to 8 minutes of a core. Each is judged as soon as it is done, its row is appended to `results.jsonl`
beside this file, and its weights are deleted. A row is found again by a digest of all that its numbers depend on, so
whoever has the file goes on with what is missing, on any machine; what was cut off goes on from its checkpoint where
`--work` is still there. Several processes with one `--work` divide the runs between them as they go; machines without
a common folder are given a `--share` each, and their files are put together by git or `cat`. When nothing is left that
can be done now, it ends and says so. `results.md` and the figures are written each time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# One core a process: the runs are small, and the time of an update must not depend on who else is at work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.fair_study.basis import basis_of
from benchmarks.fair_study.cells import COLUMN, PARTS
from benchmarks.fair_study.doing import do
from benchmarks.fair_study.objectives import UPDATES
from benchmarks.fair_study.page import write_page
from benchmarks.fair_study.records import Record, Records
from benchmarks.fair_study.study import Stage, study_of
from benchmarks.fair_study.work import Share, Worker
from benchmarks.fair_study.worlds import WORLDS
from dipp_toolkit.errors import DippError, Interrupted

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=WORLDS, default=next(iter(WORLDS)))
    parser.add_argument("--only", choices=PARTS, help="this part alone, and the columns that all are compared with")
    parser.add_argument("--minutes", type=float, help="begin nothing more after so many")
    parser.add_argument("--most", type=int, help="do so many and stop")
    parser.add_argument("--share", default="0/1", help="of every stage, for machines that share no folder: 0/2 and 1/2")
    parser.add_argument("--work", type=Path, default=Path("runs/fair-study"), help="folder for what is under way")
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl", help="file that rows are appended to")
    parser.add_argument("--keep", action="store_true", help="keep trained weights")
    parser.add_argument("--updates", type=int, default=UPDATES, help="of a run; another number is another study")
    parser.add_argument("--page", action="store_true", help="write the page from the rows, and stop")
    return parser.parse_args()


def worker_of(words: argparse.Namespace) -> Worker:
    """What does the work that was asked for."""
    world, records = WORLDS[words.world], Records(words.results)
    bases = {name: basis_of(WORLDS[name]) for name in (world.name, world.best_of) if name}

    def stages(rows: list[Record]) -> list[Stage]:
        every = study_of(world.name, world.best_of, rows, bases, words.updates).stages
        return [stage for stage in every if words.only in (None, stage.part) or stage.part == COLUMN]

    deadline = None if words.minutes is None else time.monotonic() + 60 * words.minutes
    return Worker(
        records=records,
        basis=bases[world.name],
        stages=stages,
        do=do,
        folder=words.work,
        share=Share.parse(words.share),
        deadline=deadline,
        most=words.most,
        keep=words.keep,
    )


def main() -> None:
    words = arguments()
    torch.set_num_threads(1)
    if not words.page:
        try:
            worker = worker_of(words)
            done = worker.work()
        except (DippError, Interrupted) as error:
            sys.exit(str(error))
        print(f"{done} done here; {len(worker.missing())} more of this share can be done now.")
    if words.results.parent == HERE:
        write_page(Records(words.results).read(), HERE)


if __name__ == "__main__":
    main()
