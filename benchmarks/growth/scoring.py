"""`dipp score` of n PNG files of 512 x 512 pixels with a prompt each, beside a plain loop over open_clip.

Both load the same small CLIP, whose weights are random, and have batches of 16. Each has a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES = (16, 32, 64)
SIDE, BATCH, DIFFERENT = 512, 16, 8
MODEL = "tiny-growth"
CONFIG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def by_dipp(pictures: Path, prompts: Path, weights: Path) -> list[float]:
    """Scores by the action of `dipp score`."""
    from dipp_cli.actions.score import ScoreRequest, score_images

    request = ScoreRequest(
        images=[pictures], reward="clip", prompts=str(prompts), prompt=None, out=None, batch_size=BATCH,
        assignments=[f"reward.clip.model={MODEL}", f"reward.clip.pretrained={weights}"], seed=0, device="cpu",
        quiet=True,
    )  # fmt: skip
    return [row["scores"]["clip"] for row in score_images(request)["images"]]


def by_plain_loop(pictures: Path, prompts: Path, weights: Path) -> list[float]:
    """Scores by open_clip's own transform and forward pass."""
    import open_clip
    import torch
    from PIL import Image

    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(weights))
    model, tokenizer = model.eval(), open_clip.get_tokenizer(MODEL)
    paths, texts = sorted(pictures.glob("*.png")), prompts.read_text(encoding="utf-8").splitlines()
    scores: list[float] = []
    with torch.no_grad():
        for start in range(0, len(paths), BATCH):
            pixels = torch.stack([transform(Image.open(path)) for path in paths[start : start + BATCH]])
            image, text, _ = model(pixels, tokenizer(texts[start : start + BATCH]))
            scores += (image * text).sum(-1).tolist()
    return scores


def prepared(n: int, folder: Path) -> tuple[Path, Path, Path]:
    """The folder of pictures, the file of prompts, and the weights."""
    import open_clip
    import torch
    from PIL import Image

    (folder / f"{MODEL}.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    open_clip.add_model_config(folder / f"{MODEL}.json")
    torch.manual_seed(0)
    torch.save(open_clip.create_model(MODEL).state_dict(), folder / "clip.pt")
    pictures, prompts = folder / "pictures", folder / "prompts.txt"
    pictures.mkdir()
    smooth = torch.nn.functional.interpolate(torch.rand(DIFFERENT, 3, 32, 32), size=SIDE, mode="bilinear")
    for index, pixels in enumerate((255 * smooth).byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(pixels).save(pictures / f"{index:04}.png")
    for index in range(DIFFERENT, n):
        (pictures / f"{index:04}.png").write_bytes((pictures / f"{index % DIFFERENT:04}.png").read_bytes())
    prompts.write_text("".join(f"picture {index} of a red cat\n" for index in range(n)), encoding="utf-8")
    return pictures, prompts, folder / "clip.pt"


def alone(way: Callable[..., list[float]], *given: Path) -> tuple[list[float], float, float]:
    """Scores, seconds and MiB of a process that is forked for them, so that neither way pays for imports."""

    def work(answers: Any) -> None:
        started = time.process_time()
        scores = way(*given)
        seconds = time.process_time() - started
        answers.put((scores, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))

    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=work, args=(answers,))
    process.start()
    answer: tuple[list[float], float, float] = answers.get()
    process.join()
    return answer


def measure(n: int) -> dict[str, float]:
    """Seconds of the processor's time, each process's memory, and how far the scores are apart."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = prepared(n, Path(folder))
        for way in (by_dipp, by_plain_loop):
            alone(way, *files)  # libraries and files are in memory before anything is measured
        ours, plain = alone(by_dipp, *files), alone(by_plain_loop, *files)
    return {
        "seconds by dipp score": ours[1],
        "seconds by a plain loop": plain[1],
        "MiB at most, dipp score": ours[2],
        "MiB at most, a plain loop": plain[2],
        "largest difference of scores": max(abs(a - b) for a, b in zip(ours[0], plain[0], strict=True)),
    }
