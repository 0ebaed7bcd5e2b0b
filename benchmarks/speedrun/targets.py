"""What a run has to reach, and a look at how far it is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks._shared.emoji_columns import one_step_column, scores_and_naming, stored
from benchmarks._shared.teacher import best_guidance, teacher_column, teacher_key
from benchmarks.speedrun.rules import HELD_OUT, World
from dipp_emoji.judge import EmojiJudge
from dipp_toolkit import Condition, Generator, load_generator, load_prompts, load_reference
from dipp_toolkit.evaluation.diversity import seed_diversity
from dipp_toolkit.evaluation.intervals import mean_interval
from dipp_toolkit.protocols import Reference, texts
from dipp_toolkit.training.run_state.start_record import pipeline_digest
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.jsonl import whole_rows

HERE = Path(__file__).parent
QUALITY = HERE.parent / "emoji_quality"
STEPS = 50
"""Sampling steps of the teacher."""
NAMING = 0.97
"""Share of the images that the judge has to name rightly."""
KEPT = 0.9
"""Share of the start's diversity that has to be left."""


@dataclass(frozen=True)
class Look:
    """What is seen of a generator on the held-out prompts.

    Attributes:
        judge: the judge's mean score.
        low: lower end of its 95 % interval over prompts.
        high: upper end.
        naming: share of the images that the judge names rightly, in [0, 1].
        diversity: root mean square difference of two noises' images of a prompt.
    """

    judge: float
    low: float
    high: float
    naming: float
    diversity: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Targets:
    """What has to be reached at one point of a run, all three at once.

    Attributes:
        judge: upper end of the teacher's interval; the judge's mean has to be above it.
        diversity: the least there may be.
        naming: the least there may be.
        guidance: the teacher's, at which the judge likes it best.
        key: what the numbers were measured with.
    """

    judge: float
    diversity: float
    naming: float = NAMING
    guidance: float = 1.0
    key: str = ""

    def met(self, look: Look) -> dict[str, bool]:
        """Which of the three a look shows to be reached."""
        return {
            "judge": look.judge > self.judge,
            "naming": look.naming >= self.naming,
            "diversity": look.diversity >= self.diversity,
        }

    def reached(self, look: Look) -> bool:
        """Whether all three are."""
        return all(self.met(look).values())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Stand:
    """All that looks are taken with.

    Attributes:
        world: whose generators are looked at.
        prompts: held out.
        condition: the prompts, encoded.
    """

    world: World
    judge: EmojiJudge
    reference: Reference
    prompts: list[str]
    condition: Condition

    @classmethod
    def of(cls, world: World) -> Stand:
        """Load judge, reference and prompts."""
        reference, prompts = load_reference(world.reference), list(texts(load_prompts(HELD_OUT)))
        return cls(world, EmojiJudge(), reference, prompts, reference.encode(prompts))

    def look(self, generator: Generator) -> Look:
        """Every held-out prompt from the two noises that every generator is given."""
        return self._seen(one_step_column(generator, self.reference, self.condition))

    def _seen(self, images: Any) -> Look:
        scores, naming = scores_and_naming(self.judge, images, self.prompts)
        interval = mean_interval(scores)
        return Look(interval.mean, interval.low, interval.high, naming, seed_diversity(stored(images)))

    def targets(self, work: Path, records: Iterable[Path] = ()) -> Targets:
        """The targets of this world; what was measured is kept in a folder under its key.

        Args:
            work: the folder.
            records: files of records, whose targets are taken where they have the same key.
        """
        generator = load_generator(self.world.generator)
        teacher = teacher_key(self.reference, self.judge, self.prompts, STEPS)
        key = digest_of([teacher, pipeline_digest(cast(Any, generator).folder), KEPT, NAMING])
        place = work / f"targets-{key[:12]}.json"
        if place.is_file():
            return Targets(**json.loads(place.read_text(encoding="utf-8")))
        for record in (row for path in records for row in whole_rows(path)):
            if record["targets"]["key"] == key:
                return Targets(**record["targets"])
        diversity = KEPT * self.look(generator).diversity
        bound, guidance = recorded_bound(teacher) or self._bound()
        targets = Targets(bound, diversity, NAMING, guidance, key)
        work.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps(targets.as_dict(), indent=2) + "\n")
        return targets

    def _bound(self) -> tuple[float, float]:
        """The upper end of the teacher's interval at its best guidance, and that guidance: many minutes."""
        guidance = best_guidance(self.judge, self.reference)["guidance"]
        return self._seen(teacher_column(self.reference, self.condition, STEPS, guidance)).high, guidance


def recorded_bound(key: str, folder: Path = QUALITY) -> tuple[float, float] | None:
    """What `benchmarks/emoji_quality` recorded of the teacher of this key; None where it recorded another one, or none.

    Args:
        key: `teacher_key` of today's weights and prompts.
        folder: with the benchmark's results.
    """
    for path in sorted(folder.glob("results*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        teacher = results.get("teacher", {})
        if teacher.get("key") == key:
            preference = results["columns"][teacher["column"]]["preference"]
            return preference["high"], results["reference_guidance"]["guidance"]
    return None
