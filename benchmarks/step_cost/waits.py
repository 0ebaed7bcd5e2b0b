"""Where the host waits for the device in a step of a tiny twin: how often depends on no width.

The device is one that computes on the CPU and is counted as a GPU would be (`dipp_toolkit.utils.stand_in_device`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.full_size_step.case import recommended

PROMPTS = ("a red cube", "a dog", "a cat on a mat", "two blue spheres")
COLOURS = """
def blue(images, prompts):
    return images[:, 2].mean((1, 2))

def red(images, prompts):
    return images[:, 0].mean((1, 2))
"""


def count_waits(pipeline: str, mode: str, work: Path) -> dict[str, Any]:
    """Waits of the third step, in all and by place: the first steps make what is made once.

    Args:
        pipeline: a blueprint's name; the twin is of its class.
        mode: `"full"` or `"lora"`.
        work: folder for what is made on the way.
    """
    from dipp_toolkit.config import make_config
    from dipp_toolkit.models.blueprints import find_pipeline
    from dipp_toolkit.models.tiny_pipelines import write_twin
    from dipp_toolkit.training.run import TrainingLoop
    from dipp_toolkit.training.run_state.run_folder import RunFolder
    from dipp_toolkit.training.setup.assembly import assemble
    from dipp_toolkit.training.setup.resolve import resolve
    from dipp_toolkit.utils.host_waits import HostWaits
    from dipp_toolkit.utils.json_files import read_json
    from dipp_toolkit.utils.stand_in_device import stand_in_device

    work.mkdir(parents=True, exist_ok=True)
    kind = read_json(find_pipeline(pipeline).folder / "model_index.json")["_class_name"]
    twin = write_twin(kind, work / "twin")
    (work / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    (work / "colours.py").write_text(COLOURS, encoding="utf-8")
    with stand_in_device() as device:
        config = resolve(
            make_config(
                {
                    "generator": str(twin), "reference": str(twin), "prompts": str(work / "prompts.txt"),
                    "rewards": {f"{work}/colours.py:blue": 1.0, f"{work}/colours.py:red": 0.5}, "mode": mode,
                    "batch_size": 2, "steps": 100, "eval_count": 2, "reference_steps": 1, "precision": "fp32",
                    "guidance": recommended(pipeline).get("guidance", 4.5), "reward_scale": 1.0,
                    "device": str(device), "out": work / "run", "prompt_cache": work / "cache", "lora_rank": 2,
                }
            )
        )  # fmt: skip
        loop = TrainingLoop(config, assemble(config), RunFolder(work / "run"))
        for _ in range(2):
            loop.one_step()
        with HostWaits() as waits:
            loop.one_step()
    places = {f"{wait.kind}, {wait.operation}: {wait.where}": number for wait, number in waits.counts.most_common()}
    return {"waits": waits.total, "places": places}
