"""Does `geneval@isolated` see what mmdet sees? Its network at full size, with random weights, beside the package.

    dipp reward install geneval
    python benchmarks/geneval/original.py

Inside the environment mmdet makes the network that GenEval's configuration names, with random weights that are kept as
a checkpoint, and looks at two pictures of noise by `mmdet.apis.inference_detector`. The toolkit's detector reads that
checkpoint and looks at the same pictures as tensors; labels, scores, boxes and masks have to be the same bits. Then the
reward is asked through its worker process for verdicts that follow from what was seen. The published weights are not to
be had here, so the 40 scenes of `run.py` are judged inside the environment with the emoji world's detector in the place
of mmdet's: what is held against the truth is the variant's rules in its environment. A few minutes on a core. Writes
original.json and original.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from dipp_toolkit.rewards.isolated.environments import find_installed, share
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.utils.atomic import write_text
from dipp_toolkit.utils.device import environment

HERE = Path(__file__).parent
SIZES = "96 by 128"
SPREAD = 30
"""Times the weights of the head of classes, so that a random network is certain of something."""


def pictures() -> Tensor:
    """Noise of 256 levels, `(2, 3, 96, 128)` in [0, 1]."""
    return torch.randint(256, (2, 3, 96, 128), generator=torch.Generator().manual_seed(0)) / 255


def inside(folder: Path) -> dict[str, Any]:
    """What is compared in the environment: a row of what is the same, and what was seen."""
    import mmdet
    import numpy as np
    from mmdet.apis import inference_detector, init_detector

    from benchmarks.geneval.run import measured
    from benchmarks.geneval.scenes import NOISE
    from dipp_geneval.original import CONFIG, OriginalGenEval, load

    torch.manual_seed(0)
    config = Path(mmdet.__file__).parent / ".mim" / "configs" / CONFIG
    model = init_detector(str(config), None, palette="coco", device="cpu")
    with torch.no_grad():
        model.panoptic_head.cls_embed.weight.mul_(SPREAD)
    torch.save(
        {"state_dict": model.state_dict(), "meta": {"CLASSES": model.dataset_meta["classes"]}}, folder / "it.pth"
    )
    names = list(load(folder / "it.pth", metadata=_metadata(folder, "cow", "cow")).detector.classes)
    reward = load(folder / "it.pth", metadata=folder / "metadata.jsonl")
    images = pictures()
    start = time.perf_counter()
    ours = reward.detector(images)
    seconds = (time.perf_counter() - start) / len(images)
    same = {"labels": True, "scores": True, "boxes": True, "masks": True}
    certain: dict[str, float] = {}
    for image, found in zip(images, ours, strict=True):
        blue_first = image.mul(255).round().byte().permute(1, 2, 0).numpy()[..., ::-1].copy()
        theirs = inference_detector(model, blue_first).pred_instances
        same["labels"] &= list(found.labels) == [names[label] for label in theirs.labels.tolist()]
        for name, values in (("scores", theirs.scores), ("boxes", theirs.bboxes), ("masks", theirs.masks)):
            same[name] &= bool(np.array_equal(getattr(found, name), values.numpy()))
    for label, score in zip(ours[0].labels, ours[0].scores, strict=True):
        certain[label] = max(certain.get(label, 0.0), float(score))
    scenes = measured(40, NOISE, OriginalGenEval)
    return {
        "scenes": len(scenes), "true verdicts": sum(row["correct"] == row["right"] for row in scenes),
        "same bits": same, "instances": [len(found.labels) for found in ours], "certain": certain, "seconds": seconds,
        "parameters": sum(weights.numel() for weights in model.parameters()), "mmdet": mmdet.__version__,
    }  # fmt: skip


def _metadata(folder: Path, seen: str, unseen: str) -> Path:
    path = folder / "metadata.jsonl"
    rows = [{"prompt": prompt, "include": [{"class": name, "count": 1}]} for prompt, name in
            (("seen", seen), ("unseen", unseen))]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--inside":
        torch.set_num_threads(1)
        Path(sys.argv[2], "inside.json").write_text(json.dumps(inside(Path(sys.argv[2]))), encoding="utf-8")
        return
    installed = find_installed("geneval")
    share(installed.folder)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [str(installed.python), __file__, "--inside", name]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""})
        found = json.loads((folder / "inside.json").read_text(encoding="utf-8"))
        seen = max(found["certain"], key=found["certain"].__getitem__)
        unseen = next(label for label in ("cow", "cup", "dog", "car") if label not in found["certain"])
        reward = load_reward(
            "geneval@isolated", checkpoint=str(folder / "it.pth"), metadata=str(_metadata(folder, seen, unseen))
        )
        first = pictures()[:1].repeat(2, 1, 1, 1)
        found["verdicts"] = reward(first, ["seen", "unseen"]).tolist()
    found["expected"] = [float(found["certain"][seen] > 0.3), 0.0]
    write_text(HERE / "original.json", json.dumps(found, indent=1) + "\n")
    kept = ", ".join(part for part, equal in found["same bits"].items() if equal) or "nothing"
    write_text(
        HERE / "original.md",
        "| network | weights | pictures | instances | the same bits as mmdet's own call | verdicts of the worker | "
        "expected | seconds a picture |\n|---|---|---|---|---|---|---|---|\n"
        f"| Mask2Former, Swin-S, {found['parameters'] / 1e6:.0f} M parameters, mmdet {found['mmdet']} | random | "
        f"{len(found['instances'])} of {SIZES} pixels | {', '.join(map(str, found['instances']))} | {kept} | "
        f"{found['verdicts']} | {found['expected']} | {found['seconds']:.0f} |\n\n"
        f"Of {found['scenes']} scenes of emoji (noise 0.05), judged in the environment with the detector of the emoji "
        f"world in the place of mmdet's, {found['true verdicts']} verdicts are true.\n\n"
        f"{environment(torch.device('cpu'))['device']}, torch {torch.__version__}. Not run: the published weights, and "
        "a GPU.\n",
    )
    print((HERE / "original.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
