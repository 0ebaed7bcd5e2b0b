"""GenEval as a reward: whether each image shows what the metadata of its prompt say, by a detector and CLIP."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.models.files.fetching import NotHere
from dipp_toolkit.rewards.code_digests import identity_of
from dipp_toolkit.rewards.open_clip_models import note_clip
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.content_digests import file_digest
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.imports import check_call, check_parts, find_in_python, is_python_name, load_python_name
from dipp_toolkit.utils.messages import nearest

from . import DETECTOR
from .colours import ClipColours, ColourNamer
from .detectors import Detector, OpenDetector, find_config
from .metadata import COLOURS, Metadata, metadata_file, of_prompt, read_metadata
from .verdict import Detections, Thresholds, Verdict, counted, verdict_of

MODEL, PRETRAINED = "ViT-L-14-quickgelu", "openai"
"""The published colour classifier: open_clip's ViT-L-14 with OpenAI's weights, which has quick GELUs."""
OUTPUTS = ("correct", "share")


class GenEval:
    r"""GenEval's rules (`verdict`) by a detector of transformers: **not the published number's detector**.

    The published pipeline detects by mmdet's Mask2Former with mmdet's weights; `geneval@isolated` does that. The
    default here has the same architecture (Mask2Former, Swin-S, COCO instances), weights of another training, and masks
    that transformers rounds to a grid of 384 by 384. Scores of the two are not comparable to the last per cent; a
    number for a paper is to come from the published one. Not run here with the published weights of either.

    Args:
        detector: a folder of transformers' layout or a repository of the hub, of a model that gives objects masks or
            boxes (see `detectors.OpenDetector`); or `file.py:Name`, a `detectors.Detector` of the user's own.
        metadata: a file of JSON lines in the published format; the published prompts' own by default.
        output: `correct`, the published verdict, 0 or 1; or `share`, the share of the requirements that hold.
        colours: open_clip's name of the colour classifier, or `file.py:Name`, a `colours.ColourNamer` of one's own.
        pretrained: open_clip's tag of its weights, or a local file.
        threshold: an object has to be more certain than this.
        counting_threshold: the same, for prompts of the task `counting`.
        max_objects: most objects of a class that count.
        max_overlap: intersection over union at which the less certain of two objects is dropped; 1 drops none.
        position_threshold: share of both objects' sides by which centres may differ by chance.

    Attributes:
        differentiable: False: a verdict has no gradient.

    Raises:
        RequestError: an option is out of range, a file is not there, or the weights are unavailable.
    """

    name = "geneval"
    differentiable = False
    licence = "other (the detector's card says no more), MIT (CLIP)"
    source = "Ghosh et al. 2023, arXiv 2310.11513; detector: huggingface.co/" + DETECTOR
    range = "0 or 1; in [0, 1] with output=share"
    blind_to = (
        "beauty and style; all that the metadata do not name; where a detector of COCO's photographs errs on pictures "
        "of another kind (GenEval 2: Kamath et al. 2025, arXiv 2512.16853)"
    )
    asks = "a detector, and CLIP for colours"

    def __init__(
        self,
        detector: str | Path | Detector = DETECTOR,
        metadata: str | Path | None = None,
        output: str = "correct",
        colours: str | ColourNamer = MODEL,
        pretrained: str = PRETRAINED,
        threshold: float = 0.3,
        counting_threshold: float = 0.9,
        max_objects: int = 16,
        max_overlap: float = 1.0,
        position_threshold: float = 0.1,
    ):
        self.output = output
        self.thresholds = checked(
            output, Thresholds(threshold, counting_threshold, max_objects, max_overlap, position_threshold)
        )
        path = metadata_file(metadata)
        self.rows, self.metadata_digest = read_metadata(path), file_digest(path)
        self.detector = _detector_of(detector)
        self.pretrained = pretrained
        self.colours = colours
        self._namer: ColourNamer | None = None
        self.device = torch.device("cpu")
        if not isinstance(colours, str):
            self._namer = colours
        elif is_python_name(colours):
            self._namer = _own(colours, "colour classifier")
            check_call(self._namer, ("image", "name", "found"), f"colour classifier '{colours}'")
        elif any(clause.color for row in self.rows.values() for clause in row.include):
            self._namer = ClipColours(colours, pretrained)

    @classmethod
    def find_files(
        cls,
        detector: str | Path = DETECTOR,
        metadata: str | Path | None = None,
        colours: str = MODEL,
        pretrained: str = PRETRAINED,
        **_others: Any,
    ) -> list[Path]:
        """The detector's configuration, by the options of the reward; it and the metadata are fetched if not here.

        Raises:
            RequestError: a file or folder is not there, or open_clip does not know the colour classifier.
        """
        files = [] if is_python_name(str(detector)) else [find_config(detector)]
        if not is_python_name(colours):
            note_clip(cls.name, colours, pretrained)
        with suppress(NotHere):  # noted
            metadata_file(metadata)
        return files

    def score_identity(self) -> str:
        """A digest of what decides a score: detector and colour classifier with their weights, metadata, options."""
        parts = ["" if part is None else identity_of(part) for part in (self.detector, self._namer)]
        return digest_of([*parts, self.metadata_digest, self.output, asdict(self.thresholds)])

    def to(self, device: torch.device | str) -> GenEval:
        """Move the networks; returns itself."""
        self.device = torch.device(device)
        for part in (self.detector, self._namer):
            move = getattr(part, "to", None)
            if move is not None:
                move(self.device)
        return self

    @torch.no_grad()
    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Verdicts in float32 on the images' device.

        Raises:
            RequestError: the images are not a `(B, 3, H, W)` batch, or there is not one prompt for each.
            RunError: a prompt has no metadata, or speaks of a class that the detector does not know.
        """
        verdicts = self.verdicts(images, prompts)
        scores = [float(verdict.correct if self.output == "correct" else verdict.share) for verdict in verdicts]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    @torch.no_grad()
    def verdicts(self, images: Images, prompts: Sequence[str]) -> list[Verdict]:
        """The verdict of each image with its reasons.

        Raises:
            RequestError: as for a call.
            RunError: as for a call.
        """
        check_inputs(self.name, images, prompts)
        rows = [of_prompt(self.rows, prompt) for prompt in prompts]
        for row in rows:
            self._check_classes(row)
        if images.device.type != self.device.type:
            self.to(images.device)
        found = self.detector(images)
        if len(found) != len(images):
            raise RunError(f"The detector of the reward 'geneval' answered for {len(found)} of {len(images)} images.")
        return [self._verdict(image, one, row) for image, one, row in zip(images, found, rows, strict=True)]

    def _verdict(self, image: Tensor, found: Detections, row: Metadata) -> Verdict:
        objects = counted(found, row.tag, self.thresholds)
        return verdict_of(objects, row, partial(self._colours_in, image), self.thresholds)

    def _colours_in(self, image: Tensor, name: str, found: Sequence[Any]) -> list[str]:
        assert self._namer is not None
        named = list(self._namer(image, name, found))
        strange = next((colour for colour in named if colour not in COLOURS), None)
        if len(named) != len(found) or strange is not None:
            said = f"named the colour '{strange}'" if strange is not None else f"named {len(named)} of {len(found)}"
            raise RunError(
                f"The colour classifier of the reward 'geneval' {said}; expected one of {', '.join(COLOURS)} for each "
                "object."
            )
        return named

    def _check_classes(self, row: Metadata) -> None:
        unknown = min(row.classes - set(self.detector.classes), default=None)
        if unknown is not None:
            guess = nearest(unknown, self.detector.classes)
            hint = f" It knows '{guess}'." if guess else ""
            raise RunError(
                f"The metadata of the prompt '{row.prompt}' ask for '{unknown}', which the detector of the reward "
                f"'geneval' does not know.{hint} Use a detector that does, or correct the class in the metadata."
            )


def checked(output: str, thresholds: Thresholds) -> Thresholds:
    """The thresholds, once they and the output can be used.

    Raises:
        RequestError: one cannot.
    """
    if output not in OUTPUTS:
        raise RequestError(f"The option output of the reward 'geneval' is '{output}'; expected {' or '.join(OUTPUTS)}.")
    for option in ("threshold", "counting_threshold", "max_overlap", "position_threshold"):
        value = getattr(thresholds, option)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise RequestError(
                f"The option {option} of the reward 'geneval' is {value!r}; expected a number in [0, 1]."
            )
    most = thresholds.max_objects
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise RequestError(f"The option max_objects of the reward 'geneval' is {most!r}; expected 1 or more.")
    return thresholds


def _detector_of(detector: str | Path | Detector) -> Detector:
    if not isinstance(detector, (str, Path)):
        return detector
    if not is_python_name(str(detector)):
        return OpenDetector(detector)
    made = check_parts(_own(str(detector), "detector"), str(detector), "detector", ("classes",))
    check_call(made, ("images",), f"detector '{detector}'")
    return made  # type: ignore[no-any-return]


def _own(name: str, what: str) -> Any:
    """What a Python name means; a class is made."""
    named = load_python_name(name, what)
    return find_in_python(name, what, {})() if inspect.isclass(named) else named
