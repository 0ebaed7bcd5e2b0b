r"""GenEval's verdict of one image, from what a detector found in it: pure functions, without any network.

The rules are those of `evaluation/evaluate_images.py` of github.com/djghosh13/geneval (Ghosh et al. 2023,
arXiv 2310.11513, section 3), and so are the thresholds. An image is *correct* where every `include` clause holds and no
`exclude` clause does:

- an `include` clause wants `count` objects of a class, and looks at the `count` most certain of them alone;
- where it has a colour, all of these have to be of it by the colour classifier;
- where it has a position, each of these has to stand so to each object of an earlier clause;
- an `exclude` clause forbids `count` or more objects of a class: a counting prompt excludes one more than it wants.

With the centres $c_a, c_b$ and sides $d_a, d_b$ of two boxes, $o = c_a - c_b$, the offset beyond what may be chance is
$r = \mathrm{sign}(o)\max(|o| - 0.1\,(d_a + d_b), 0)$, axis by axis; $a$ is left of, right of, above or below $b$ where
$r / \lVert o \rVert$ exceeds 1/2 on that side. Both a left and an above can hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Real

from dipp_toolkit.errors import RunError

from .metadata import COLOURS, Clause, Metadata

COUNTING = "counting"

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
Mask = Bool[np.ndarray, "height width"]


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image, in any order.

    Attributes:
        labels: class of each object.
        scores: how certain each is, in [0, 1].
        boxes: left, top, right, bottom of each in pixels of the image.
        masks: pixels of each; None from a detector that has only boxes.

    Raises:
        RunError: these are not of as many objects each.
    """

    labels: Sequence[str]
    scores: Real[np.ndarray, " objects"]
    boxes: Real[np.ndarray, "objects 4"]
    masks: Bool[np.ndarray, "objects height width"] | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        shapes = {"scores": ((count,), np.shape(self.scores)), "boxes": ((count, 4), np.shape(self.boxes))}
        if self.masks is not None:
            shapes["masks"] = ((count, *np.shape(self.masks)[-2:]), np.shape(self.masks))
        for name, (expected, shape) in shapes.items():
            if shape != expected:
                raise RunError(
                    f"A detector found {count} labels with {name} of shape {shape}; expected {expected}, one for each."
                )


@dataclass(frozen=True, eq=False)
class Found:
    """One object that counts.

    Attributes:
        box: where it is.
        mask: its pixels; None where the detector has none.
    """

    box: Box
    mask: Mask | None = None


Objects = Mapping[str, Sequence[Found]]
"""By class, the most certain first."""
NamesColours = Callable[[str, Sequence[Found]], Sequence[str]]
"""The colour of each of these objects of a class, each one of `metadata.COLOURS`."""


@dataclass(frozen=True)
class Thresholds:
    """What the protocol leaves to its user, with the published values.

    Attributes:
        threshold: an object has to be more certain than this.
        counting_threshold: the same, for prompts of the task `counting`.
        max_objects: most of a class that count.
        max_overlap: intersection over union with a more certain object of its class at which one is dropped;
            1 drops none, which is what was published.
        position_threshold: share of both objects' sides by which centres may differ by chance.
    """

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position_threshold: float = 0.1


@dataclass(frozen=True)
class Verdict:
    """The verdict of an image.

    Attributes:
        reasons: why it is not correct, a sentence each; empty where it is.
        met: requirements that hold; see `verdict_of`.
        asked: requirements.
    """

    reasons: tuple[str, ...]
    met: int
    asked: int

    @property
    def correct(self) -> bool:
        """The published verdict."""
        return not self.reasons

    @property
    def share(self) -> float:
        """Share of the requirements that hold, in [0, 1]; 1 where the image is correct and only there."""
        return self.met / self.asked


def counted(found: Detections, tag: str, thresholds: Thresholds) -> dict[str, list[Found]]:
    """The detections that count for a prompt of a task.

    Args:
        found: of one image.
        tag: the task of the prompt's metadata.
        thresholds: published ones, or others.

    Returns:
        Objects by class, the most certain first, at most `max_objects` of each.
    """
    least = thresholds.counting_threshold if tag == COUNTING else thresholds.threshold
    scores = np.asarray(found.scores)
    objects: dict[str, list[Found]] = {}
    looked_at: dict[str, int] = {}
    for index in np.argsort(-scores, kind="stable"):
        label = found.labels[index]
        if not scores[index] > least or looked_at.get(label, 0) >= thresholds.max_objects:
            continue
        looked_at[label] = looked_at.get(label, 0) + 1  # before overlaps are dropped, as published
        left, top, right, bottom = map(float, found.boxes[index])
        one = Found((left, top, right, bottom), None if found.masks is None else found.masks[index])
        kept = objects.setdefault(label, [])
        if thresholds.max_overlap == 1 or all(overlap(one.box, other.box) < thresholds.max_overlap for other in kept):
            kept.append(one)
    return objects


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes whose last row and column belong to them, in [0, 1]."""
    shared = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - shared
    return shared / union if union else 0.0


def _area(box: Box) -> float:
    return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)


def relations(a: Box, b: Box, threshold: float = 0.1) -> set[str]:
    """Where a stands to b: any of `metadata.RELATIONS` that hold; none where they are too close to say.

    Args:
        a: the box that the sentence is about.
        b: the other one.
        threshold: share of the sum of both boxes' sides by which centres may differ by chance.
    """
    offsets, beyond = [], []
    for axis in (0, 1):
        offset = (a[axis] + a[axis + 2] - b[axis] - b[axis + 2]) / 2
        sides = abs(a[axis + 2] - a[axis]) + abs(b[axis + 2] - b[axis])
        offsets.append(offset)
        beyond.append(math.copysign(max(abs(offset) - threshold * sides, 0.0), offset))
    if max(map(abs, beyond)) < 1e-3:
        return set()
    across, down = (value / math.hypot(*offsets) for value in beyond)
    named = {"left of": -across, "right of": across, "above": -down, "below": down}
    return {name for name, value in named.items() if value > 0.5}


def verdict_of(
    objects: Objects,
    metadata: Metadata,
    colours: NamesColours,
    thresholds: Thresholds = Thresholds(),
) -> Verdict:
    """The verdict of one image.

    A clause asks for its count, and besides for its colour and its place where it has them; what depends on objects
    that are not there does not hold. That an `exclude` clause is kept counts only where the objects of its class that
    the prompt wants are there: an empty picture does not hold half of "three cats".

    Args:
        objects: from `counted`.
        metadata: of the prompt.
        colours: names the colours of objects; called for clauses with a colour alone.
        thresholds: published ones, or others.
    """
    reasons: list[str] = []
    met = asked = 0
    groups: list[Sequence[Found] | None] = []
    absent: set[str] = set()
    for clause in metadata.include:
        found = objects.get(clause.name, ())[: clause.count]
        wrong = _wrong(clause, found, groups, colours, thresholds)
        reasons += [reason for reason in wrong if reason]
        asked += len(wrong)
        met += wrong.count("")
        groups.append(None if any(wrong) else found)
        if len(found) < clause.count:
            absent.add(clause.name)
    for clause in metadata.exclude:
        number = len(objects.get(clause.name, ()))
        asked += 1
        if number >= clause.count:
            reasons.append(f"expected fewer than {clause.count} {clause.name}, found {number}")
        elif clause.name not in absent:
            met += 1
    return Verdict(tuple(reasons), met, asked)


def _wrong(
    clause: Clause,
    found: Sequence[Found],
    groups: Sequence[Sequence[Found] | None],
    colours: NamesColours,
    thresholds: Thresholds,
) -> list[str]:
    """What is wrong with each requirement of an `include` clause, or an empty text."""
    if len(found) < clause.count:
        missing = f"expected at least {clause.count} {clause.name}, found {len(found)}"
        return [missing] * (1 + (clause.color is not None) + (clause.position is not None))
    wrong = [""]
    if clause.color is not None:
        named = list(colours(clause.name, found))
        others = ", ".join(f"{named.count(colour)} {colour}" for colour in COLOURS if colour in named)
        right = named.count(clause.color) >= clause.count
        wrong.append("" if right else f"expected {clause.count} {clause.color} {clause.name}, found {others}")
    if clause.position is not None:
        wrong.append(
            "not looked at: its colour is wrong" if any(wrong) else _misplaced(clause, found, groups, thresholds)
        )
    return wrong


def _misplaced(
    clause: Clause, found: Sequence[Found], groups: Sequence[Sequence[Found] | None], thresholds: Thresholds
) -> str:
    assert clause.position is not None
    relation, target = clause.position
    others = groups[target]
    if others is None:
        return f"nothing is there for {clause.name} to be {relation}"
    for one in found:
        for other in others:
            holds = relations(one.box, other.box, thresholds.position_threshold)
            if relation not in holds:
                stands = " and ".join(sorted(holds)) or "too close to say"
                return f"expected {clause.name} {relation} the other, found {stands}"
    return ""
