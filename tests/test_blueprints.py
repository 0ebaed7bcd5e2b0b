"""Published architectures without weights, and plans made from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dipp_cli.app import main
from dipp_cli.planning import parse_memory
from dipp_toolkit.blueprints import PipelineBlueprint, RewardBlueprint, find_blueprint, parameter_count
from dipp_toolkit.components import load_component
from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import RequestError
from dipp_toolkit.planning import make_plan, recommend
from dipp_toolkit.planning.dry_run import cost_of, dry
from dipp_toolkit.registry import get_registry
from dipp_toolkit.twins import write_twin

PUBLISHED = {
    "pixart-alpha": {"transformer": 610.9, "vae": 83.65, "text_encoder": 4762.3},
    "sd15": {"unet": 859.5, "vae": 83.65, "text_encoder": 123.1},
    "sdxl": {"unet": 2567.5, "vae": 83.65, "text_encoder": 123.1, "text_encoder_2": 694.7},
    "sd-turbo": {"unet": 865.9, "vae": 83.65, "text_encoder": 340.4},
    "sd3": {"transformer": 2028.3, "vae": 83.8, "text_encoder": 123.7, "text_encoder_2": 694.7},
    "flux": {"transformer": 11901.4, "vae": 83.8, "text_encoder": 123.1, "text_encoder_2": 4762.3},
}
REWARDS = {"hps": 986.1, "imagereward": 446.2}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_architectures_have_the_published_sizes(name: str) -> None:
    blueprint = find_blueprint(name)
    assert isinstance(blueprint, PipelineBlueprint)
    with torch.device("meta"):
        for component, millions in PUBLISHED[name].items():
            count = parameter_count(blueprint.build(component)) / 1e6
            assert count == pytest.approx(millions, rel=1e-3), component


@pytest.mark.parametrize("name", REWARDS)
def test_the_rewards_have_the_published_sizes(name: str) -> None:
    blueprint = find_blueprint(name)
    assert isinstance(blueprint, RewardBlueprint)
    with torch.device("meta"):
        assert parameter_count(blueprint.build()) / 1e6 == pytest.approx(REWARDS[name], rel=1e-3)


def test_every_published_name_has_a_blueprint() -> None:
    registry = get_registry()
    for name in ("pixart-alpha", "sd15", "sdxl", "sd3", "flux"):
        assert name in registry.entries["reference"]
        assert name in registry.entries["blueprint"]
    for name in ("pixart-onestep", "sd15-onestep", "sdxl-dmd2", "sd-turbo", "flux-onestep"):
        assert name in registry.entries["generator"]
        assert name in registry.entries["blueprint"]


def test_random_weights_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    twin = write_twin("PixArtAlphaPipeline", tmp_path / "twin")
    for weights in twin.glob("*/*.safetensors"):
        weights.unlink()
    blueprint = PipelineBlueprint(twin, "nobody/nothing")
    folder = blueprint.write(tmp_path / "out", ["transformer"], dtype=torch.bfloat16)
    assert load_component(folder, "transformer").config.num_layers > 0
    with pytest.raises(RequestError, match="weights of 'vae' are missing"):
        load_component(folder, "vae")
    with pytest.raises(RequestError, match="exists already"):
        blueprint.write(tmp_path / "out", ["transformer"])
    with pytest.raises(RequestError, match="has no component 'unet'"):
        blueprint.write(tmp_path / "failed", ["transformer", "unet"])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "twin"]


def test_a_dry_run_counts_what_a_real_one_would_hold() -> None:
    with dry():
        x = torch.empty(256, 256, requires_grad=True)

        def chain() -> torch.Tensor:
            hidden = x
            for _ in range(4):
                hidden = (hidden @ x).tanh()
            return hidden.sum()

        cost, total = cost_of(chain, keep=True)
        assert cost.flops == 4 * 2 * 256**3
        assert cost.kept == pytest.approx(4 * 256 * 256 * 4, abs=8)  # tanh keeps its output, which is matmul's input
        back, _ = cost_of(total.backward)
        assert back.flops == 2 * cost.flops


@pytest.mark.slow
def test_a_plan_of_pixart_and_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    words = "plan --generator pixart-onestep --reward hps,imagereward --batch 4 --memory 24GB --json"
    assert main(words.split()) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"]["reference"] == pytest.approx(0.611e9, rel=0.01)
    assert plan["parameters"]["hps"] == pytest.approx(0.986e9, rel=0.01)
    assert plan["fits"]
    assert plan["changes"]
    assert plan["peak"] > 24e9 > plan["recommended"]["peak"]
    assert plan["seconds"]["H100"] < plan["seconds"]["RTX 3090"]


@pytest.mark.slow
def test_what_is_given_up_saves_memory_and_three_copies_cost_more() -> None:
    config = TrainConfig(
        generator="sd15-onestep", reference="sd15", rewards={"hps": 1.0}, batch_size=1, precision="bf16", mode="lora"
    )
    lora, full = make_plan(config), make_plan(config.model_copy(update={"mode": "full"}))
    assert full.peak > 2 * lora.peak
    assert full.trainable == 2 * full.parameters["reference"]
    checkpointed = make_plan(config.model_copy(update={"gradient_checkpointing": True, "decode_checkpointing": True}))
    assert checkpointed.peak < lora.peak
    assert sum(checkpointed.flops.values()) > sum(lora.flops.values())
    assert recommend(config, 2**20)[0] is None


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--generator", "pixart-onestp"], "Did you mean 'pixart-onestep'?"),
        (["--generator", "pixart-onestep", "--memory", "lots"], "no amount of memory"),
        (["--generator", "pixart-onestep", "--reward", "hsp"], "hps"),
        (["--generator", "emoji-onestep"], "has no blueprint to plan with"),
        (["--reward", "hps"], "--generator"),
    ],
)
def test_a_plan_that_cannot_be_made_is_a_sentence(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert "Traceback" not in error


def test_memory_is_read_with_its_unit() -> None:
    assert parse_memory("24GB") == 24 * 10**9
    assert parse_memory("24 GiB") == 24 * 2**30


def test_rewards_that_see_the_whole_batch_share_one_decode() -> None:
    from dipp_toolkit.planning.costs import RewardCosts
    from dipp_toolkit.planning.dry_run import Cost
    from dipp_toolkit.planning.estimate import _reward_work

    costs = {name: RewardCosts(1, Cost(flops=flops), Cost(flops=10)) for name, flops in (("a", 50), ("b", 70))}
    config = TrainConfig(batch_size=4)
    assert _reward_work(config, costs) == {"a": Cost(flops=50), "b": Cost(flops=60)}
    sliced = _reward_work(config.model_copy(update={"reward_batch": 2}), costs)
    assert sliced == {"a": Cost(flops=100), "b": Cost(flops=140)}
