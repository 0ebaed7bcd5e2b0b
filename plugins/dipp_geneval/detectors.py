"""Open detectors of transformers: those whose processor gives each object a mask, or else those that give it a box."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, get_args, get_type_hints, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.models.files.fetching import NotHere, hub_file
from dipp_toolkit.rewards.code_digests import identity_of
from dipp_toolkit.rewards.weights import load_pretrained
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.images import Images, to_uint8
from dipp_toolkit.utils.paths import is_local_name, user_path

from .verdict import Detections

LEAST = 0.05
"""Certainty below which nothing is kept: far below any threshold of use, so that thresholds alone decide."""
OTHER_NAMES = {
    "mouse": "computer mouse",
    "keyboard": "computer keyboard",
    "remote": "tv remote",
    "hair dryer": "hair drier",
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "television": "tv",
}
"""GenEval's names of classes that detectors of COCO call otherwise."""
NOT_OF_SCORES = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype"})
"""Fields of a network's configuration that say where it lies and what wrote it."""
EXPECTED = (
    "the reward 'geneval' expects instance segmentation, such as facebook/mask2former-swin-small-coco-instance, or "
    "object detection."
)


@runtime_checkable
class Detector(Protocol):
    """What finds objects; a class of the user's own, `detector=file.py:Name`, will do.

    Attributes:
        classes: names of all classes that it knows.
    """

    @property
    def classes(self) -> Collection[str]:
        """As the metadata spell them."""

    def __call__(self, images: Images) -> Sequence[Detections]:
        """What is in each image, in [0, 1]; what is said of an image depends on that image alone."""


def as_named(label: str) -> str:
    """A detector's name of a class as GenEval spells it."""
    label = label.strip().casefold().replace("_", " ")
    return OTHER_NAMES.get(label, label)


class OpenDetector:
    """A model of transformers for segmentation or object detection, of the class that its configuration names.

    Its objects have masks where its processor gives each object one of its own, as Mask2Former's and MaskFormer's do;
    boxes alone where the network says boxes, as DETR, Conditional DETR, RT-DETR and YOLOS do, DETR for segmentation
    included. Others (OneFormer, EoMT) say neither and are refused.

    Images are rounded to 8 bits and prepared by the model's own processor, one at a time: a detector pads the images of
    a batch to one size, and what it says of one would depend on the others. A segmentation's boxes are the extents of
    its masks.

    Args:
        place: a folder in the Hugging Face layout, or a repository of the hub.

    Raises:
        RequestError: it is not there, is a pickle, is no detector or one that says neither masks nor boxes, or its
            checkpoint is of another network.
    """

    def __init__(self, place: str | Path):
        from transformers import AutoConfig, AutoImageProcessor

        check_place(place)
        config = load_pretrained(AutoConfig, place, "geneval", "configuration")
        self.processor = load_pretrained(AutoImageProcessor, place, "geneval", "image processor")
        kind = _class_for(config, place)
        self.has_masks = _gives_masks(self.processor)
        if not self.has_masks and not _gives_boxes(self.processor, kind):
            raise RequestError(
                f"The model in {place} is a {kind.__name__} with a {type(self.processor).__name__}, which give objects "
                f"neither masks of their own nor boxes; {EXPECTED}"
            )
        self.network = load_pretrained(kind, place, "geneval").float().eval().requires_grad_(False)
        self.names: Mapping[int, str] = {int(key): as_named(name) for key, name in config.id2label.items()}

    @property
    def classes(self) -> Collection[str]:
        """See `Detector`."""
        return self.names.values()

    def score_identity(self) -> str:
        """A digest of what decides what it finds: network, configurations of it and of the processor, names."""
        network = {key: value for key, value in self.network.config.to_dict().items() if key not in NOT_OF_SCORES}
        return digest_of([self.processor.to_dict(), network, identity_of(self.network), sorted(self.names.items())])

    def to(self, device: torch.device | str) -> OpenDetector:
        """Move the network; returns itself."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Images) -> list[Detections]:
        """See `Detector`."""
        return [self._one(pixels) for pixels in to_uint8(images)]

    def _one(self, pixels: np.ndarray) -> Detections:
        size = pixels.shape[:2]
        inputs = self.processor(images=[pixels], input_data_format="channels_last", return_tensors="pt")
        outputs = self.network(**inputs.to(self.network.device))
        return self._segmented(outputs, size) if self.has_masks else self._boxed(outputs, size)

    def _segmented(self, outputs: Any, size: tuple[int, int]) -> Detections:
        (found,) = self.processor.post_process_instance_segmentation(
            outputs, threshold=LEAST, target_sizes=[size], return_binary_maps=True
        )
        segments = found["segments_info"]
        masks = np.zeros((0, *size), bool)
        if segments:
            masks = found["segmentation"].cpu().numpy() > 0
        labels = [self.names[segment["label_id"]] for segment in segments]
        scores = np.array([segment["score"] for segment in segments], np.float32)
        return Detections(labels, scores, boxes_of(masks), masks)

    def _boxed(self, outputs: Any, size: tuple[int, int]) -> Detections:
        (found,) = self.processor.post_process_object_detection(outputs, threshold=LEAST, target_sizes=[size])
        labels = [self.names[label] for label in found["labels"].tolist()]
        return Detections(labels, _array(found["scores"]), _array(found["boxes"]).reshape(-1, 4))


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """The extents of masks `(objects, height, width)`: left, top and the first column and row after, `(objects, 4)`."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def check_place(place: str | Path) -> None:
    """Refuse a folder that is not there.

    Raises:
        RequestError: as a sentence.
    """
    path = user_path(place)
    if not path.is_dir() and is_local_name(place):
        raise RequestError(
            f"There is no folder {path} for the detector of the reward 'geneval' (looked in {path.parent.resolve()}); "
            "expected a folder of transformers' layout, a repository OWNER/NAME of the hub, or file.py:Name."
        )


def find_config(place: str | Path) -> Path:
    """A detector's configuration, beside which its weights lie; a repository's is fetched where it is not here.

    Raises:
        RequestError: it is not there.
    """
    check_place(place)
    if user_path(place).is_dir():
        return user_path(place) / "config.json"
    try:
        return hub_file(str(place), "config.json")
    except NotHere:  # noted; a dry run does not open it
        return Path("config.json")
    except Exception as error:  # the hub's client raises its own and its HTTP library's errors
        raise RequestError(
            f"The detector {place} of the reward 'geneval' cannot be fetched: {first_line(error)}. Name a folder of "
            "transformers' layout with its option detector."
        ) from error


def _class_for(config: Any, place: str | Path) -> Any:
    """The class of transformers that detects by this configuration: the one that it names, where it names one.

    Raises:
        RequestError: it is another kind of model.
    """
    from transformers import (
        AutoModelForInstanceSegmentation,
        AutoModelForObjectDetection,
        AutoModelForUniversalSegmentation,
    )

    kinds = (AutoModelForUniversalSegmentation, AutoModelForInstanceSegmentation, AutoModelForObjectDetection)
    found = [kind._model_mapping[type(config)] for kind in kinds if type(config) in kind._model_mapping]
    if not found:
        raise RequestError(f"The model in {place} is a {config.model_type}, which does not detect objects; {EXPECTED}")
    named = config.architectures or ()
    return next((kind for kind in found if kind.__name__ in named), found[0])


def _gives_masks(processor: Any) -> bool:
    """Whether it tells objects apart where they overlap, which a map with one number for each pixel cannot."""
    post_process = getattr(processor, "post_process_instance_segmentation", None)
    return post_process is not None and "return_binary_maps" in inspect.signature(post_process).parameters


def _gives_boxes(processor: Any, kind: Any) -> bool:
    """Whether the network's output, by its annotation, has boxes that the processor reads."""
    output = get_type_hints(kind.forward).get("return")
    fields = [one for part in (output, *get_args(output)) if dataclasses.is_dataclass(part) for one in _fields(part)]
    return "pred_boxes" in fields and hasattr(processor, "post_process_object_detection")


def _fields(output: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(output)]


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
