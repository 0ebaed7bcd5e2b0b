"""GenEval by its own detector, mmdet's Mask2Former, in an environment of its own: `--reward geneval@isolated`.

The published pipeline is mmdet 2.27 with mmcv-full 1.7, which has no wheels for a Python and a torch of today. Its
checkpoint, though, is that of mmdet 3 (`download_models.sh` fetches it from `mmdetection/v3.0`), and so is the code
here: mmdet 3.3 with the configuration of the same name, and mmcv without its compiled operations (`mmcv_extension`).
Verdict, thresholds and colours are the toolkit's, as in `reward`.

Checked with the network at full size and random weights, on a CPU; not run with the published weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dipp_toolkit.errors import RequestError, RunError, first_line
from dipp_toolkit.rewards.isolated.environments import Environment
from dipp_toolkit.utils.images import Images, to_uint8
from dipp_toolkit.utils.paths import user_path

from .detectors import as_named
from .reward import MODEL, PRETRAINED, GenEval, checked
from .verdict import Detections, Thresholds

CONFIG = "mask2former/mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.py"
"""In `mmdet/.mim/configs`, which mmdet's wheel brings."""
CHECKPOINT = (
    "https://download.openmmlab.com/mmdetection/v3.0/mask2former/mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco/"
    "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco_20220504_001756-c9d0c4f2.pth"
)
"""What `evaluation/download_models.sh` of github.com/djghosh13/geneval fetches. Its SHA-256 begins as its name ends,
`c9d0c4f2`: more of it is not published, and so much is checked of a download."""

REQUIREMENTS = (
    "addict",
    "mmcv-lite==2.1.0",
    "mmdet==3.3.0",
    "mmengine==0.10.7",
    "opencv-python-headless",
    "platformdirs",
    "pycocotools",
    "shapely",
    "six",
    "termcolor",
    "terminaltables",
    "yapf",
)
"""What mmdet imports, checked with Python 3.11 beside torch 2.14 and NumPy 2.4; the rest is shared."""


def environment() -> Environment:
    """The environment `geneval`."""
    return Environment(
        name="geneval",
        requirements=REQUIREMENTS,
        reward="geneval",
        entry="dipp_geneval.original:load",
        imports="mmdet.apis",
        prepare="dipp_geneval.original:add_extension",
        described=OriginalGenEval,
    )


def add_extension(packages: Path) -> None:
    """Put the stand-in for mmcv's compiled operations where mmcv looks for them.

    Args:
        packages: the environment's site-packages.

    Raises:
        RunError: mmcv is not there.
    """
    if not (packages / "mmcv").is_dir():
        raise RunError(f"The package mmcv-lite is not in {packages}; make the environment again with --force.")
    shutil.copyfile(Path(__file__).with_name("mmcv_extension.py"), packages / "mmcv" / "_ext.py")


class MmdetDetector:
    """mmdet's model as a detector; see `dipp_geneval.detectors.Detector`.

    Args:
        model: of `mmdet.apis.init_detector`.
    """

    def __init__(self, model: Any):
        self.model = model.eval().requires_grad_(False)
        self.names = [as_named(name) for name in model.dataset_meta["classes"]]

    @property
    def classes(self) -> Collection[str]:
        """GenEval's 80 names of COCO's classes."""
        return self.names

    def to(self, device: torch.device | str) -> MmdetDetector:
        """Move the model; returns itself."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Images) -> list[Detections]:
        """What `mmdet.apis.inference_detector` finds in each 8-bit picture, of at most 100 instances."""
        from mmdet.apis import inference_detector

        found = []
        for pixels in to_uint8(images):
            # Blue first, as OpenCV reads the files that the published pipeline names.
            instances = inference_detector(self.model, np.ascontiguousarray(pixels[..., ::-1])).pred_instances.cpu()
            labels = [self.names[label] for label in instances.labels.tolist()]
            masks = np.asarray(instances.masks, bool)
            found.append(Detections(labels, instances.scores.numpy(), instances.bboxes.numpy(), masks))
        return found


class OriginalGenEval(GenEval):
    """`GenEval` by the published pipeline's own detector; see `load` for its options."""

    licence = "Apache-2.0 (mmdet), MIT (CLIP)"
    source = "Ghosh et al. 2023, arXiv 2310.11513; detector: mmdet's Mask2Former, Swin-S, by the published checkpoint"


def load(
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    metadata: str | Path | None = None,
    output: str = "correct",
    colours: str = MODEL,
    pretrained: str = PRETRAINED,
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
    max_objects: int = 16,
    max_overlap: float = 1.0,
    position_threshold: float = 0.1,
) -> OriginalGenEval:
    """Load the detector; see `GenEval` for the options that are its own.

    Args:
        checkpoint: a local `.pth` of mmdet; the published one is downloaded otherwise.
        config: a local configuration of mmdet that it fits; the published one otherwise.
        metadata: as for `GenEval`.
        output: as for `GenEval`.
        colours: as for `GenEval`.
        pretrained: as for `GenEval`.
        threshold: as for `GenEval`.
        counting_threshold: as for `GenEval`.
        max_objects: as for `GenEval`.
        max_overlap: as for `GenEval`.
        position_threshold: as for `GenEval`.

    Raises:
        RequestError: an option cannot be used, or a file is not there or not what it should be.
    """
    checked(output, Thresholds(threshold, counting_threshold, max_objects, max_overlap, position_threshold))
    for option, given in (("checkpoint", checkpoint), ("config", config)):
        if given is not None and not user_path(given).is_file():
            raise RequestError(f"The option {option} of the reward 'geneval' names {given}, which is not a file.")
    detector = MmdetDetector(_model(checkpoint, config))
    return OriginalGenEval(
        detector,
        metadata,
        output,
        colours,
        pretrained,
        threshold,
        counting_threshold,
        max_objects,
        max_overlap,
        position_threshold,
    )


def _model(checkpoint: str | Path | None, config: str | Path | None) -> Any:
    """mmdet's network with the checkpoint's tensors.

    Raises:
        RequestError: they do not fit, or the file holds more than tensors and plain values.
    """
    import mmdet
    from mmdet.apis import init_detector

    written = user_path(config) if config is not None else Path(mmdet.__file__).parent / ".mim" / "configs" / CONFIG
    model = init_detector(str(written), None, palette="coco", device="cpu")
    state = _tensors(checkpoint)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise RequestError(
            f"The checkpoint {checkpoint or CHECKPOINT} does not fit the configuration {written}: {first_line(error)}."
        ) from error
    return model


def _tensors(checkpoint: str | Path | None) -> dict[str, Any]:
    """The checkpoint's tensors, read without running anything.

    Raises:
        RequestError: it cannot be fetched, or is not a file of tensors and plain values.
    """
    try:
        if checkpoint is None:
            content = torch.hub.load_state_dict_from_url(
                CHECKPOINT, map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
        else:
            content = torch.load(user_path(checkpoint), map_location="cpu", weights_only=True)
    except Exception as error:  # urllib's, torch's and pickle's errors
        raise RequestError(
            f"The checkpoint {checkpoint or CHECKPOINT} cannot be read: {first_line(error)}. It is read without "
            "running code; where it holds more than tensors and plain values, keep {'state_dict': ...} of it in "
            "a file of its own, where you trust it, and name that: --set reward.geneval@isolated.checkpoint=FILE.pth"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise RequestError(f"The checkpoint {checkpoint} holds no tensors by name; expected mmdet's 'state_dict'.")
    return state
