"""Plans for several GPUs: memory of each, what they send, and where the time goes; held against real processes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import traffic_of_a_step
from dipp_cli.app import main
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import PipelineBlueprint
from dipp_toolkit.models.components import load_component
from dipp_toolkit.planning import estimate, machines
from dipp_toolkit.planning.estimate import make_plan
from dipp_toolkit.planning.machines import ring_rate
from dipp_toolkit.planning.scaling import Scale, scaled_plan
from dipp_toolkit.registry import Entry, get_registry
from forked import ranks, script, wait_together
from launching import FSDP2
from tiny import PROMPTS, tiny_pipeline

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations" / "scaling.md"
NAME = "tiny-for-plans"
WIDE = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny pipeline that has a blueprint."""
    path = tiny_pipeline(tmp_path_factory.mktemp("scaling") / "tiny")
    known = get_registry().entries["blueprint"]
    known[NAME] = Entry("blueprint", NAME, lambda: PipelineBlueprint(path, "somebody/tiny"), "", (), "tests")
    yield path
    del known[NAME]


def config(**more: Any) -> TrainConfig:
    own = {"reference": NAME, "guidance": 2.0, "batch_size": 2, "lora_rank": 4, "precision": "fp32"}
    return TrainConfig(**{**own, **more})


@pytest.fixture
def size(folder: Path) -> int:
    """Parameters of its network."""
    return sum(parameter.numel() for parameter in load_component(folder, "transformer").parameters())


@pytest.mark.usefixtures("folder")
def test_one_process_alone_is_the_plan_that_knows_of_no_others() -> None:
    for sharding in ("none", "fsdp"):
        alone = scaled_plan(config(), Scale(1, sharding))
        assert alone.plan == make_plan(config())
        assert alone.traffic == {}
        assert alone.seconds == pytest.approx(alone.plan.seconds["H100"])


def test_a_ring_is_as_fast_as_its_slowest_part() -> None:
    assert ring_rate("H100", 8) == 450e9
    assert ring_rate("H100", 64) == 400e9  # eight adapters of 50 GB/s
    assert ring_rate("A100", 16) == 200e9


def test_gradients_are_averaged_once_an_update(size: int) -> None:
    for accumulation in (1, 3):
        made = scaled_plan(config(accumulation=accumulation, assistant_rounds=2), Scale(8))
        once = 2 * 7 / 8 * WIDE * size
        assert made.traffic == {"gradients averaged": {"assistant update": 2 * once, "generator": once}}
        assert made.batch == 2 * accumulation * 8


def test_sharded_weights_are_gathered_for_every_pass(size: int) -> None:
    once = 3 / 4 * WIDE * size
    plain = scaled_plan(config(), Scale(4, "fsdp")).traffic
    assert plain["weights gathered"] == {"assistant update": 3 * once, "divergence": 2 * once, "generator": 2 * once}
    assert plain["gradients reduced"] == {"assistant update": once, "generator": once}
    more = scaled_plan(config(accumulation=2, recompute_generator=True), Scale(4, "fsdp")).traffic
    assert more["weights gathered"] == {"assistant update": 6 * once, "divergence": 4 * once, "generator": 6 * once}
    assert more["gradients reduced"] == {"assistant update": 2 * once, "generator": 2 * once}


def test_sharding_cuts_what_is_trained_and_not_the_decoder(size: int) -> None:
    whole, cut = make_plan(config(accumulation=2)), scaled_plan(config(accumulation=2), Scale(8, "fsdp")).plan
    for part in ("reference", "generator", "assistant", "gradients", "optimizer", "average"):
        assert cut.resident[part] == whole.resident[part] // 8
    for part in ("process", "decoder"):
        assert cut.resident[part] == whole.resident[part]
    assert all(cut.transient[name] >= size for name, size in whole.transient.items())
    beside = scaled_plan(config(accumulation=2), Scale(8)).plan
    assert beside.resident == whole.resident
    assert beside.transient == whole.transient | {"gradients averaged": WIDE * size}


def test_gradients_stay_where_another_pass_follows(size: int) -> None:
    one, two = make_plan(config()), make_plan(config(accumulation=2))
    assert two.resident == one.resident | {"gradients": WIDE * size}
    assert one.transient["generator backward"] == two.transient["generator backward"] + WIDE * size
    assert one.transient["divergence"] == two.transient["divergence"]
    assert scaled_plan(config(), Scale(8)).plan.transient["gradients averaged"] == 2 * WIDE * size
    four, eight = (scaled_plan(config(), Scale(count, "fsdp")).plan.transient for count in (4, 8))
    for piece in ("assistant update", "generator backward"):
        assert four[piece] - eight[piece] == WIDE * size // 4 - WIDE * size // 8


def test_adapters_share_one_base_until_it_is_cut(size: int) -> None:
    whole, cut = make_plan(config(mode="lora")), scaled_plan(config(mode="lora"), Scale(8, "fsdp")).plan
    assert {"generator", "assistant"} & set(whole.resident) == set()
    assert [cut.resident[name] for name in ("reference", "generator", "assistant")] == [WIDE * size // 8] * 3
    assert cut.resident["adapters"] == whole.resident["adapters"] // 8


@pytest.mark.usefixtures("folder")
def test_time_follows_passes_and_what_no_pass_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = scaled_plan(config(), Scale(8, "fsdp"))
    monkeypatch.setitem(machines.LINKS, "H100", (1e3, 1e3))
    slow = scaled_plan(config(), Scale(8, "fsdp"))
    assert slow.traffic == fast.traffic
    for name, piece in slow.pieces.items():
        sent = sum(kind.get(name, 0.0) for kind in slow.traffic.values())
        assert piece.communication == pytest.approx(sent / 1e3)
        assert piece.exposed == pytest.approx(max(0.0, sent / 1e3 - piece.compute))
    assert slow.seconds == pytest.approx(sum(max(item.compute, item.communication) for item in slow.pieces.values()))
    beside = scaled_plan(config(), Scale(8)).pieces["generator"]
    assert beside.compute > beside.communication - beside.exposed > 0  # hidden behind the backward pass alone
    longer = scaled_plan(config(accumulation=3), Scale(1))
    assert longer.images_per_second == pytest.approx(scaled_plan(config(), Scale(1)).images_per_second)
    assert longer.batch == 6


@pytest.mark.usefixtures("folder")
def test_a_piece_takes_as_long_as_its_operations_or_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = make_plan(config())
    assert calls.pieces["H100"] == {name: count * estimate.LAUNCH for name, count in calls.launches.items()}
    monkeypatch.setattr(estimate, "LAUNCH", 0.0)
    whole, half = make_plan(config(), 0.4), make_plan(config(), 0.2)
    assert half.seconds["H100"] == pytest.approx(2 * whole.seconds["H100"])
    assert whole.pieces["H100"]["generator"] == pytest.approx(whole.flops["generator"] / (66.9e12 * 0.4))


@pytest.mark.parametrize("scale", [Scale(0), Scale(1, utilisation=0.0), Scale(1, utilisation=1.5)])
def test_a_scale_out_of_range_is_refused(scale: Scale) -> None:
    with pytest.raises(RequestError, match="at least one process, and a share above 0"):
        scaled_plan(config(), scale)


def measured(folder: Path, out: Path, fsdp: bool, configs: list[TrainConfig]) -> list[dict[str, float]]:
    """Bytes that each of two real processes sent in a step, by kind."""
    (out / "prompts.txt").write_text("\n".join(PROMPTS))
    places = {
        "generator": str(folder), "reference": str(folder), "prompts": str(out / "prompts.txt"),
        "prompt_cache": str(out / "cache"), "out": str(out / "run"), "device": "cpu", "eval_count": 2,
    }  # fmt: skip
    settings = [item.model_dump(mode="json", exclude_unset=True) | places for item in configs]
    environments = ranks(2, **(FSDP2 if fsdp else {}))
    programs = [
        script(Path(traffic_of_a_step.__file__), json.dumps(settings), **environment) for environment in environments
    ]
    assert wait_together(programs) == 0, "".join(program.stderr[-3000:] for program in programs)
    found: list[dict[str, float]] = json.loads(programs[0].stdout)
    return found


@pytest.mark.first_case
@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_send_what_the_plan_says(folder: Path, tmp_path: Path, sharding: Any) -> None:
    """To the byte: the rows of this network's layers are shared evenly by two, and need no padding."""
    configs = [
        config(mode=mode, **more)
        for mode in ("full", "lora")
        for more in ({}, {"accumulation": 2, "recompute_generator": True, "gradient_checkpointing": True})
    ]
    for item, sent in zip(configs, measured(folder, tmp_path, sharding == "fsdp", configs), strict=True):
        planned = scaled_plan(item, Scale(2, sharding)).traffic
        assert sent == {kind: pytest.approx(sum(pieces.values())) for kind, pieces in planned.items()}


@pytest.mark.usefixtures("folder")
def test_the_command_says_what_several_gpus_need(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--reference", NAME, "--processes", "16", "--sharding", "fsdp", "--utilisation", "0.2"]
    registry = get_registry()
    registry.entries["reference"][NAME] = Entry("reference", NAME, "nowhere:nothing", "", (), "tests")
    try:
        assert main([*words, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["scaling"]["batch"] == 16 * told["settings"]["batch_size"]
        assert told["scaling"]["images_per_second"] > 0
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert "a step on 16 H100, weights sharded" in shown
        assert "20% of the published dense peak" in shown
        assert main([*words[:3], "--sharding", "fsdp"]) == 2
        assert "give their number with --processes" in capsys.readouterr().err
        assert main([*words[:3], "--processes", "2", "--sharding", "zero"]) == 2
        assert "expected none or fsdp" in capsys.readouterr().err
    finally:
        del registry.entries["reference"][NAME]


@pytest.mark.exhaustive
def test_the_page_is_what_the_command_writes() -> None:
    build = runpy.run_path(str(ROOT / "tools" / "build_scaling.py"))
    assert PAGE.read_text(encoding="utf-8") == build["render"](), "run: python tools/build_scaling.py"


def test_the_page_has_a_place_for_every_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for mark in runpy.run_path(str(ROOT / "tools" / "build_scaling.py"))["TABLES"]:
        inside = text.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]
        assert inside.count("\n| ") >= 2, mark
