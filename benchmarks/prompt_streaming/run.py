"""What prompts cost in memory as they become many: load a set, take a part, encode it into the cache, read batches.

    OMP_NUM_THREADS=1 python benchmarks/prompt_streaming/run.py

For each count a fresh process loads a `.jsonl` of a quarter more prompts, takes a seeded part of that count, encodes
it with the text encoder of a tiny PixArt-alpha pipeline into an empty prompt cache, opens the cache anew, and reads
batches in the order of a training. Measured is anonymous memory, `RssAnon` of /proc/self/status every few milliseconds:
what cannot be dropped and read again from a file. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COUNTS = (10_000, 100_000, 1_000_000)
EXTRA = 1.25
"""Prompts in the file for each that is taken."""
TOKENS, BATCH, BATCHES = 16, 32, 1000
INTERVAL = 0.005
"""Seconds between two looks at the memory."""
STAGES = {"load": "load the set", "part": "take a part", "encode": "encode and write", "read": "read batches"}
SUBJECTS = ("cat", "dog", "tree", "house", "flower", "sea", "face", "sky", "car", "sun")
COLOURS = ("red", "green", "blue", "yellow", "black", "white")


def anonymous() -> float:
    """Anonymous memory of this process, MiB."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024


class Stages:
    """Seconds and peak memory of one stage after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, float] = {}
        self._peak = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, anonymous())
            time.sleep(INTERVAL)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._peak, started = anonymous(), time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        self.peaks[name] = max(self._peak, anonymous())


def write_prompts(path: Path, count: int) -> None:
    """Different prompts with ids and categories, one a line."""
    with path.open("w") as file:
        for k in range(count):
            subject, colour, other = SUBJECTS[k % 10], COLOURS[k // 10 % 6], SUBJECTS[k // 60 % 10]
            text = f"a photo of a {colour} {subject} on the {other}, number {k} of a long series of such photographs"
            file.write(json.dumps({"id": f"photo-{k:08d}", "prompt": text, "category": colour}) + "\n")


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def scratch_bytes() -> int:
    """Bytes of the files without a name that this process has mapped."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/scratch/" in line:
            first, last = (int(address, 16) for address in line.split()[0].split("-"))
            total += last - first
    return total


def measure(count: int, folder: Path) -> dict[str, Any]:
    """One count, in this process."""
    import torch

    from dipp_toolkit import load_prompts
    from dipp_toolkit.models.files.folders import family_of
    from dipp_toolkit.models.text_encoders import PromptEncoder
    from dipp_toolkit.prompts.cache import CachedConditions, PromptCache
    from dipp_toolkit.prompts.sampler import PromptOrder
    from dipp_toolkit.protocols import texts

    torch.set_num_threads(1)
    pipeline, place = folder / "pipeline", folder / f"cache-{count}"
    encoder = PromptEncoder(pipeline, family_of(pipeline), long_prompts="cut")
    encoder.encode(["a red cat"])  # libraries are loaded before anything is measured
    start, stages = anonymous(), Stages()
    with stages.stage("load"):
        whole = load_prompts(str(folder / f"{count}.jsonl"))
    with stages.stage("part"):
        part = load_prompts(f"{folder / f'{count}.jsonl'}?count={count}&seed=1")
    assert len(whole.prompts) == int(EXTRA * count) and len(part.prompts) == count
    prompts = texts(part)
    with stages.stage("encode"):
        encoded = PromptCache(place).encode(encoder, prompts)
    assert encoded == count
    encoder.release()
    with stages.stage("read"):
        conditions = CachedConditions(prompts, PromptCache(place), torch.device("cpu"))
        order = PromptOrder(len(conditions), 0)
        for k in range(BATCHES):
            batch = conditions[order.take(k * BATCH, BATCH)]
            assert batch.tensors["encoder_hidden_states"].shape[:2] == (BATCH, TOKENS)
    return {
        "prompts": count,
        "start_mib": start,
        "seconds": stages.seconds,
        "peaks_mib": stages.peaks,
        "peak_mib": max(stages.peaks.values()),
        "file_bytes": (folder / f"{count}.jsonl").stat().st_size,
        "scratch_bytes": scratch_bytes(),
        "cache_bytes": size_of(place),
    }


def in_fresh_process(count: int, folder: Path) -> dict[str, Any]:
    """What `measure` gives in a process of its own."""
    write_prompts(folder / f"{count}.jsonl", int(EXTRA * count))
    words = [sys.executable, __file__, "--work", str(folder), "--only", str(count)]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"DIPP_CACHE": str(folder / "cache")}
    )
    shutil.rmtree(folder / f"cache-{count}")
    (folder / f"{count}.jsonl").unlink()
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def row_of(*cells: Any) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(rows: list[dict[str, Any]], about: dict[str, str]) -> str:
    """The results as Markdown."""
    mib, first, last = 2**20, rows[0], rows[-1]
    names = ["prompts", "at the start", "peak", "added", "file", "copies", "cache"]
    lines = [
        "# Prompts that stream",
        "",
        "Anonymous memory of a process that loads a file, takes a seeded part, encodes it with a tiny text encoder",
        f"into the prompt cache, and reads {BATCHES:,} shuffled batches of {BATCH}.",
        "",
        f"**{last['prompts']:,} prompts have {last['peak_mib'] / first['peak_mib']:.3f} times the peak of "
        f"{first['prompts']:,}.**",
        "",
        "MiB of memory, then MiB on disk:",
        "",
        row_of(*names),
        "|---" * len(names) + "|",
    ]
    for row in rows:
        memory = (row["start_mib"], row["peak_mib"], row["peak_mib"] - row["start_mib"])
        disk = (row[f"{name}_bytes"] / mib for name in ("file", "scratch", "cache"))
        lines.append(row_of(f"{row['prompts']:,}", *(f"{number:.1f}" for number in (*memory, *disk))))
    for title, key in (("Seconds", "seconds"), ("Peak while", "peaks_mib")):
        lines += ["", f"{title}{', MiB' if key == 'peaks_mib' else ''}:", "", row_of("prompts", *STAGES.values())]
        lines.append("|---" * (len(STAGES) + 1) + "|")
        lines += [row_of(f"{row['prompts']:,}", *(f"{row[key][name]:.1f}" for name in STAGES)) for row in rows]
    return (
        "\n".join(lines)
        + f"""

At the start all libraries and the text encoder are loaded. The file holds {EXTRA:g} times as many prompts as are taken.
Copies are what prompts are read from, Arrow files without a name. An embedding is {TOKENS} tokens
of 32 numbers. Memory is looked at every {INTERVAL * 1000:.0f} ms. Ran on {about["device"]},
Python {about["python"]}, torch {about["torch"]}, beside other programs, so that seconds are upper bounds.

    OMP_NUM_THREADS=1 python benchmarks/prompt_streaming/run.py
"""
    )


def main() -> None:
    """Measure every count and write the results, or measure one count in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--work", type=Path, help="a folder for some gigabytes; a temporary one where none is named")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.only is not None:
        print(json.dumps(measure(words.only, words.work)))
        return
    import torch

    from dipp_toolkit.models.tiny_pipelines import write_twin
    from dipp_toolkit.utils.device import environment

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=words.work, prefix="prompt-streaming-") as scratch:
        folder = Path(scratch)
        write_twin("PixArtAlphaPipeline", folder / "pipeline", max_tokens=TOKENS)
        rows = []
        for count in words.counts:
            rows.append(in_fresh_process(count, folder))
            print(json.dumps(rows[-1]), flush=True)
    about = environment(torch.device("cpu"))
    (HERE / "results.json").write_text(json.dumps({"rows": rows, "environment": about}, indent=1) + "\n")
    (HERE / "results.md").write_text(table(rows, about))
    print((HERE / "results.md").read_text())


if __name__ == "__main__":
    main()
