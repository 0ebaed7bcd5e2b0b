"""What does a reward that is fitted to votes know of a preference that nobody tells it?

    python benchmarks/reward_fit/run.py

On images that `emoji-onestep` draws, four of each prompt, a voter with a hidden preference is asked about pairs of one
prompt and errs one time in ten. `dipp_toolkit.preferences.fit.run.fit_reward` fits a reward on the embedded CLIP,
and it is asked about all pairs of 100 other prompts, where the preference itself, without errors, is right. Compared
are 100 and 300 votes, a frozen backbone and one with adapters, and the fit without its choices: without the image's
statistics, and with TRL's `center_rewards_coefficient` at the 0.01 that is recommended for language. Writes
`results.json` and `results.md` beside this file; takes a quarter of an hour on one core, half of it for the adapters,
which are fitted with one seed. Run again, it goes on with what is missing in `results.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from dipp_toolkit.models.loading import load_generator, load_reference
from dipp_toolkit.preferences.fit import network
from dipp_toolkit.preferences.fit.run import fit_reward
from dipp_toolkit.preferences.fit.trainer import FitSettings
from dipp_toolkit.preferences.pair import Candidate, Comparison
from dipp_toolkit.prompts.loading import load_prompts
from dipp_toolkit.protocols import texts
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.images import save_image

HERE = Path(__file__).parent
PROMPTS, HELD, IMAGES, NOISE = 400, 100, 4, 0.1


def warmth(images: Tensor) -> Tensor:
    """Red less blue."""
    return (images[..., 0, :, :] - images[..., 2, :, :]).mean((-1, -2))


def bright_centre(images: Tensor) -> Tensor:
    """The light of the middle quarter less that of all."""
    return images[..., 16:48, 16:48].mean((-1, -2, -3)) - images.mean((-1, -2, -3))


def saturation(images: Tensor) -> Tensor:
    """The strongest channel less the weakest, pixel by pixel."""
    return (images.amax(-3) - images.amin(-3)).mean((-1, -2))


def sharpness(images: Tensor) -> Tensor:
    """Squared differences of neighbours."""
    return images.diff(dim=-1).square().mean((-1, -2, -3))


HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {
    "warmth": warmth, "bright centre": bright_centre, "saturation": saturation, "sharpness": sharpness,
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """How a reward is fitted.

    Attributes:
        votes: how many it is given.
        settings: of the fit.
        statistics: whether the head sees the image's statistics.
        seeds: of votes and fits.
    """

    votes: int
    settings: FitSettings
    statistics: bool = True
    seeds: int = 3


WAYS = {
    "100 votes": Way(100, FitSettings()),
    "300 votes": Way(300, FitSettings()),
    "300 votes, without statistics": Way(300, FitSettings(), statistics=False),
    "300 votes, centred by 0.01": Way(300, FitSettings(center=0.01)),
    "300 votes, adapters of rank 4": Way(300, FitSettings(lora_rank=4), seeds=1),
}


@dataclass(frozen=True)
class Drawn:
    """An image in memory, as `Picture` has it."""

    pixels: Tensor

    def read(self) -> Tensor:
        return self.pixels

    def encoded(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            save_image(self.pixels, Path(folder) / "image.png")
            return (Path(folder) / "image.png").read_bytes()


@torch.no_grad()
def draw(seed: int) -> tuple[list[str], Tensor]:
    """Prompts, and `(prompts, images, 3, 64, 64)` in 256 levels, as files hold them."""
    generator, reference = load_generator("emoji-onestep"), load_reference("emoji-reference")
    random = torch.Generator().manual_seed(seed)
    every = list(texts(load_prompts("emoji-train")))
    prompts = [every[row] for row in torch.randperm(len(every), generator=random)[: PROMPTS + HELD].tolist()]
    images = []
    for start in range(0, len(prompts), 25):
        condition = reference.encode([prompt for prompt in prompts[start : start + 25] for _ in range(IMAGES)])
        noise = torch.randn(len(condition), *generator.latent_shape, generator=random)
        images.append(reference.decode(generator.generate(noise, condition)))
    levels = torch.cat(images).clamp(0, 1).mul(255).round() / 255
    return prompts, levels.unflatten(0, (-1, IMAGES))


def ask(prompts: list[str], images: Tensor, scores: Tensor, votes: int, seed: int) -> list[Comparison]:
    """Votes of a voter who errs, on pairs of the first prompts."""
    random = torch.Generator().manual_seed(seed)
    said = []
    for _ in range(votes):
        prompt = int(torch.randint(PROMPTS, (1,), generator=random))
        pair = torch.randperm(IMAGES, generator=random)[:2].tolist()
        first, second = (
            Candidate(prompt * IMAGES + row, prompts[prompt], "emoji-onestep", Drawn(images[prompt, row]))
            for row in pair
        )
        right = bool(scores[prompt, pair[0]] > scores[prompt, pair[1]])
        errs = bool(torch.rand(1, generator=random) < NOISE)
        said.append(Comparison(first, second, float(right != errs), "hidden"))
    return said


@contextmanager
def with_statistics(wanted: bool) -> Iterator[None]:
    """Networks that are made meanwhile see the image's statistics, or do not."""
    before = network.GRIDS
    network.GRIDS = before if wanted else ()
    try:
        yield
    finally:
        network.GRIDS = before


def measure(way: Way, prompts: list[str], images: Tensor, scores: Tensor, seed: int) -> float:
    """The share of pairs of other prompts on which the fitted reward says what the preference does."""
    said = ask(prompts, images, scores, way.votes, seed)
    with tempfile.TemporaryDirectory() as folder, with_statistics(way.statistics):
        place = Path(folder) / "reward"
        fit_reward(said, place, backbone="emoji-clip", settings=way.settings, held_out=0, seed=seed)
        reward = load_reward(str(place))
        asked = images[PROMPTS:].flatten(0, 1)
        with torch.no_grad():
            given = reward(asked, [prompt for prompt in prompts[PROMPTS:] for _ in range(IMAGES)])
    above, below = torch.triu_indices(IMAGES, IMAGES, 1)
    given, right = given.unflatten(0, (-1, IMAGES)), scores[PROMPTS:]
    agreed = (given[:, above] > given[:, below]) == (right[:, above] > right[:, below])
    return agreed.float().mean().item()


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """The page."""
    page = io.StringIO()
    page.write(f"| fit | {' | '.join(HIDDEN)} |\n|---|{'---|' * len(HIDDEN)}\n")
    for way, by_preference in results.items():
        cells = []
        for values in by_preference.values():
            low, mean, high = (100 * figure for figure in (min(values), fmean(values), max(values)))
            cells.append(f"{mean:.1f} % ({low:.0f} to {high:.0f})" if len(values) > 1 else f"{mean:.1f} %")
        page.write(f"| {way} | {' | '.join(cells)} |\n")
    threads = torch.get_num_threads()
    page.write(
        f"\nAgreement with the hidden preference, without errors, on {HELD * IMAGES * (IMAGES - 1) // 2} pairs of "
        f"{HELD} prompts that were not voted on: mean of 3 seeds (lowest to highest), of adapters one seed. One vote "
        f"in {round(1 / NOISE)} errs. Emoji world, backbone emoji-clip. trl {metadata.version('trl')}, torch "
        f"{torch.__version__}, {threads} thread{'s' * (threads != 1)} of a CPU.\n"
    )
    return page.getvalue()


def main() -> None:
    """Measure and write."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    path = HERE / "results.json"
    results: dict[str, dict[str, list[float]]] = json.loads(path.read_text()) if path.is_file() else {}
    prompts, images = draw(0)
    for label, way in WAYS.items():
        for preference, score in HIDDEN.items():
            if preference in results.setdefault(label, {}):
                continue
            found = [measure(way, prompts, images, score(images), seed) for seed in range(way.seeds)]
            results[label][preference] = found
            print(label, preference, found, flush=True)
            write_text(path, json.dumps(results, indent=2) + "\n")
    write_text(HERE / "results.md", table(results))


if __name__ == "__main__":
    main()
