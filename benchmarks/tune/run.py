"""A one-step generator learns a drawing style from 50 pictures: `dipp tune` beside the naive way.

    python benchmarks/tune/run.py [--work FOLDER] [--seeds 0 1] [--way reference difference] [--threads 1]

50 stickers (`style.py`), of training pairs, with their captions. `dipp tune` teaches them to the reference and distils
`emoji-onestep` towards that; the naive way tunes the generator's own network by the same adapter, pictures and loss.
Images are of held-out pairs that no setting was chosen on, two noises each, in one step. A probe that is trained here
(`probe.py`) says which are stickers; `emoji-naming` says which show what was asked; the judge, which nothing was
trained on, says how good they are, and a prompt is won by the way whose images it likes better. The judge knows no
stickers: what it says of real ones is in the table.

A training seed is a row: it draws the pictures, the adapter, the batches. Intervals are over prompts. Checkpoints lie
in the work folder, so that a run that was stopped goes on. Writes results.json and results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor

from benchmarks._shared.measuring import choose, print_results, ran_on, write_results
from benchmarks.tune.probe import Probe, train_probe
from benchmarks.tune.style import draw
from dipp_emoji.captions import caption, pairs
from dipp_emoji.metrics import EmojiNaming
from dipp_toolkit import load_generator, load_reference, load_reward
from dipp_toolkit.evaluation.intervals import mean_interval, share_interval
from dipp_toolkit.experiments.tuning.run import tune
from dipp_toolkit.experiments.tuning.settings import AdapterRequest, TuneSettings
from dipp_toolkit.models.encoding import encode_images
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import generate_images, sample_reference
from dipp_toolkit.utils.images import Images, to_uint8, write_png

HERE = Path(__file__).parent
PICTURES = 50
NOISES = (1, 2)
ADAPTER = AdapterRequest(steps=700, batch=16, learning_rate=2e-3, rank=16)
TRAIN: dict[str, Any] = {
    "generator": "emoji-onestep", "steps": 300, "learning_rate": 2e-4, "assistant_learning_rate": 5e-4, "cooldown": 100,
    "guidance": 1.5, "ema": 0.95, "eval_count": 16, "reference_guidance": 1.5, "diagnose_every": 0,
    "sample_every": 10**6, "compile": "off",
}  # fmt: skip
"""Settings of the distillation; those of the emoji world's alignment where they are not named. They were chosen on
every second held-out pair from the first one on; what is reported is measured on the others."""
AIMS = {"styled": 0.80, "naming": 0.95}


class Silent:
    """Hears of the adapter's progress and says nothing."""

    def begin(self, what: str, total: int) -> None:
        print(what, total, flush=True)

    def advance(self, count: int) -> None: ...

    def note(self, sentence: str) -> None:
        print(sentence, flush=True)


@dataclass(frozen=True)
class Bench:
    """What all rows share.

    Attributes:
        reference: the untuned one, whose autoencoder everything is seen through.
        probe: says which images are stickers.
        prompts: captions of the held-out pairs that images are made of.
    """

    reference: DiffusersReference
    probe: Probe
    prompts: list[str]

    def measure(self, images: Tensor) -> dict[str, Tensor]:
        """Of images `(noises, prompts, 3, h, w)`: a number for each prompt and noise, `(prompts, noises)`."""
        naming, judge = EmojiNaming(), load_reward("emoji-judge")
        return {
            "styled": torch.stack([self.probe.styled(one) for one in images], 1),
            "naming": torch.stack([naming.features(one, self.prompts)[:, 0].double() for one in images], 1),
            "judge": torch.stack([judge(one, self.prompts).double() for one in images], 1),
        }

    def one_step(self, name: str) -> Tensor:
        """A generator's images of all prompts, each noise."""
        generator, conditions = load_generator(name), self.reference.encode(self.prompts)
        return torch.stack([generate_images(generator, self.reference, conditions, noise) for noise in NOISES])

    def many_steps(self, folder: Path) -> Tensor:
        """The tuned reference's images: what the generator could become."""
        reference, conditions = load_reference(str(folder)), self.reference.encode(self.prompts)
        return torch.stack([sample_reference(reference, conditions, noise, 25, 1.5) for noise in NOISES[:1]])


def write_pictures(folder: Path, seed: int) -> None:
    """50 stickers of different training pairs, with their captions beside them."""
    random = torch.Generator().manual_seed(seed)
    table = torch.tensor(pairs(held_out=False))
    chosen = table[torch.randperm(len(table), generator=random)[:PICTURES]]
    _, stickers = draw(chosen[:, 0], chosen[:, 1], random)
    folder.mkdir(parents=True, exist_ok=True)
    from PIL import Image

    for number, (pixels, pair) in enumerate(zip(to_uint8(stickers), chosen.tolist(), strict=True)):
        write_png(Image.fromarray(pixels), folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(caption(*pair) + "\n", encoding="utf-8")


def one_row(bench: Bench, work: Path, seed: int, way: str, naive: bool) -> dict[str, Any]:
    """Tune with a seed, and measure."""
    pictures = work / f"pictures-{seed}"
    write_pictures(pictures, seed)
    out = work / f"{way}-{seed}"
    fresh = not out.exists()  # the time of a run that was gone on with is not known whole
    began = time.process_time()
    settings = TuneSettings(
        pictures=pictures, out=out, way=way, naive=naive, adapter=ADAPTER, train=TRAIN | {"seed": seed}
    )
    summary = tune(settings, Silent()).summary
    seconds = time.process_time() - began
    names = {"before": "emoji-onestep", "tuned": str(out / "run" / "final")}
    names |= {"naive": str(out / "naive")} if naive else {}
    numbers = {column: bench.measure(bench.one_step(name)) for column, name in names.items()}
    numbers["reference"] = bench.measure(bench.many_steps(out / "reference"))
    row: dict[str, Any] = {
        "seed": seed, "way": way, "cpu_seconds": round(seconds) if fresh else None, "warnings": summary["warnings"],
        "columns": {
            column: {name: interval(name, values) for name, values in measured.items()}
            for column, measured in numbers.items()
        },
        "kept": float(numbers["tuned"]["naming"].mean() / numbers["before"]["naming"].mean()),
    }  # fmt: skip
    if naive:
        gains = (numbers["tuned"]["judge"] - numbers["naive"]["judge"]).mean(1)
        row["won"] = share_interval((gains > 0).double()).as_dict()
    return row


def interval(name: str, values: Tensor) -> dict[str, Any]:
    """The 95 % interval over prompts of a mean score, or of a share."""
    made = mean_interval(values) if name == "judge" else share_interval(values.mean(1))
    return made.as_dict()


def real(bench: Bench) -> dict[str, Any]:
    """What probe, naming and judge say of real compositions and stickers of the same pairs."""
    held = torch.tensor([pair for pair in pairs(held_out=True) if caption(*pair) in set(bench.prompts)])
    drawn = draw(held[:, 0], held[:, 1], torch.Generator().manual_seed(1))
    seen = [seen_through(bench.reference, images) for images in drawn]
    return {
        name: {key: interval(key, values) for key, values in bench.measure(images[None]).items()}
        for name, images in zip(("plain", "stickers"), seen, strict=True)
    }


def seen_through(reference: DiffusersReference, images: Images) -> Images:
    """Images as the autoencoder gives them back."""
    with torch.no_grad():
        return torch.cat([reference.decode(encode_images(reference, part, 64)) for part in images.split(64)])


def page(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    probe = results["probe"]
    lines = [
        f"Measured on {results['ran_on']}",
        "",
        f"{PICTURES} pictures; {results['prompts']} held-out prompts, two noises each; means with 95 % intervals over "
        f"prompts. The probe is right about {100 * probe:.1f} % of held-out compositions.",
        "",
        "| way | seed | images | recognised as the style | named rightly | judge |",
        "|---|---|---|---|---|---|",
    ]

    def cells(numbers: Mapping[str, Any]) -> str:
        shares = [_percent(numbers[name]) for name in ("styled", "naming")]
        judge = numbers["judge"]
        return " | ".join([*shares, f"{judge['mean']:.2f} ({judge['low']:.2f} to {judge['high']:.2f})"])

    for name, numbers in results["real"].items():
        lines.append(f"| | | real: {name} | {cells(numbers)} |")
    words = {
        "before": "untuned, one step", "tuned": "**tuned, one step**", "naive": "naive, one step",
        "reference": "tuned reference, 25 steps",
    }  # fmt: skip
    for row in results["rows"]:
        for column, numbers in row["columns"].items():
            lines.append(f"| {row['way']} | {row['seed']} | {words[column]} | {cells(numbers)} |")
    lines += [
        "",
        "| way | seed | style at least 80 % | naming kept, at least 95 % | prompts won from the naive way | CPU |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    for row in results["rows"]:
        styled = row["columns"]["tuned"]["styled"]["mean"]
        verdicts = [
            f"{100 * value:.1f} %, {'met' if value >= AIMS[name] else 'not met'}"
            for name, value in (("styled", styled), ("naming", row["kept"]))
        ]
        won = _percent(row["won"]) if "won" in row else ""
        took = "" if row["cpu_seconds"] is None else f"{row['cpu_seconds']} s"
        lines.append(f"| {row['way']} | {row['seed']} | {verdicts[0]} | {verdicts[1]} | {won} | {took} |")
    return "\n".join(lines) + "\n"


def _percent(interval: Mapping[str, float]) -> str:
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:.1f} % ({low:.1f} to {high:.1f})"


def main() -> None:
    """Tune, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("tune-work"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--way", nargs="+", default=["reference"], choices=["reference", "difference"])
    parser.add_argument("--every", type=int, default=2, help="every so manieth held-out prompt is used")
    parser.add_argument(
        "--first", type=int, default=1, help="from this one on; settings were chosen on those from 0 on"
    )
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    device = choose("cpu", words.threads)
    reference = load_reference("emoji-reference")
    assert isinstance(reference, DiffusersReference)
    probe = train_probe(lambda images: seen_through(reference, images))
    prompts = [caption(*pair) for pair in pairs(held_out=True)][words.first :: words.every]
    bench = Bench(reference, probe, prompts)
    path = HERE / "results.json"
    asked: dict[str, Any] = {
        "threads": words.threads, "first": words.first, "prompts": len(prompts), "adapter": vars(ADAPTER),
        "train": TRAIN,
    }  # fmt: skip
    recorded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = all(recorded.get(name) == value for name, value in asked.items())
    rows = {(row["way"], row["seed"]): row for row in (recorded["rows"] if same else ())}
    for way in words.way:
        for seed in words.seeds:
            rows[way, seed] = one_row(bench, words.work, seed, way, naive=way == "reference")
            results = asked | {
                "ran_on": ran_on(device), "probe": probe.accuracy, "real": real(bench),
                "rows": sorted(rows.values(), key=lambda row: (row["way"] != "reference", row["seed"])),
            }  # fmt: skip
            write_results(HERE, results, page(results))
    print_results(HERE)


if __name__ == "__main__":
    main()
