"""Published architectures without weights, and plans made from them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dipp_cli.actions.plan import announced_when_slow, describe, parse_memory
from dipp_cli.app import main
from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.blueprints import PipelineBlueprint, RewardBlueprint, find_blueprint, parameter_count
from dipp_toolkit.models.components import load_component
from dipp_toolkit.models.launches import counted_launches
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.planning.dry_run import cost_of, dry
from dipp_toolkit.planning.estimate import Plan, make_plan
from dipp_toolkit.planning.recommend import SAME_RESULT, recommend
from dipp_toolkit.registry import get_registry

PUBLISHED = {
    "pixart-alpha": {"transformer": 610.9, "vae": 83.65, "text_encoder": 4762.3},
    "sd15": {"unet": 859.5, "vae": 83.65, "text_encoder": 123.1},
    "sdxl": {"unet": 2567.5, "vae": 83.65, "text_encoder": 123.1, "text_encoder_2": 694.7},
    "sd-turbo": {"unet": 865.9, "vae": 83.65, "text_encoder": 340.4},
    "sd21": {"unet": 865.9},
    "sdxl-turbo": {"unet": 2567.5},
    "sd35-medium": {"transformer": 2243.2},  # 2.47 B numbers in its file, with 384 * 384 * 1536 of the position table
    "sd35-large-turbo": {"transformer": 8056.6},  # 8.15 B in its file, with 192 * 192 * 2432
    "flux-schnell": {"transformer": 11891.2},
    "sd3": {"transformer": 2028.3, "vae": 83.8, "text_encoder": 123.7, "text_encoder_2": 694.7},
    "flux": {"transformer": 11901.4, "vae": 83.8, "text_encoder": 123.1, "text_encoder_2": 4762.3},
}
REWARDS = {
    "hps": 986.1, "imagereward": 446.2, "pickscore": 986.1, "clip": 427.6, "clip-g": 1366.7, "aesthetic": 428.5,
    "cyclereward": 446.2,
    "mps": 986.1 + 118.5,  # CLIP ViT-H/14 and what attends
    "vqascore": 2849.8 + 303.5 - 12.6 + 6.3,  # Flan-T5 XL, CLIP ViT-L/14 at 336 without its last layer, the projector
}  # fmt: skip


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


def test_every_published_name_has_a_blueprint_and_says_where_it_comes_from() -> None:
    registry = get_registry()
    names = {kind: {entry.name for entry in registry.entries[kind].values()} for kind in ("reference", "generator")}
    assert {"pixart-alpha", "sd15", "sd21", "sdxl", "sd3", "sd35-medium", "flux"} <= names["reference"]
    assert {
        "pixart-onestep", "sd15-onestep", "sdxl-dmd2", "sd-turbo", "flux-onestep", "diff-instruct-sdxl", "sim-sdxl",
        "dipp-sdxl", "distar-sdxl", "distar-sdxl-short", "sdxl-turbo", "flux-schnell", "sd35-medium",
        "sd35-large-turbo", "hyper-sdxl", "sdxl-lightning", "pixart-dmd", "hyper-sd15",
    } <= names["generator"]  # fmt: skip
    for kind in names:
        for entry in registry.entries[kind].values():
            assert entry.name in registry.entries["blueprint"]
            if not entry.name.startswith("emoji-"):
                assert entry.origin is not None and entry.origin.hub.count("/") == 1
                assert entry.defaults["reference"] in names["reference"]


def test_random_weights_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    twin = write_twin("PixArtAlphaPipeline", tmp_path / "twin")
    for weights in twin.glob("*/*.safetensors"):
        weights.unlink()
    blueprint = PipelineBlueprint(twin, "nobody/nothing")
    folder = blueprint.write(tmp_path / "out", ["transformer"], dtype=torch.bfloat16)
    assert load_component(folder, "transformer").config.num_layers > 0
    with pytest.raises(RequestError, match="weights of 'vae' are missing"):
        load_component(folder, "vae")
    with pytest.raises(RequestError, match="already exists"):
        blueprint.write(tmp_path / "out", ["transformer"])
    with pytest.raises(RequestError, match="has no component 'unet'"):
        blueprint.write(tmp_path / "failed", ["transformer", "unet"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "twin"]


def test_a_dry_run_counts_what_a_real_one_would_hold() -> None:
    def chain(x: torch.Tensor) -> torch.Tensor:
        hidden = x
        for _ in range(4):
            hidden = (hidden @ x).tanh()
        return hidden.sum()

    with dry():
        x = torch.empty(256, 256, requires_grad=True)
        cost, total = cost_of(lambda: chain(x), keep=True)
        assert cost.flops == 4 * 2 * 256**3
        assert cost.kept == pytest.approx(4 * 256 * 256 * 4, abs=8)  # tanh keeps its output, which is matmul's input
        assert cost.launches == 4 * 2 + 1
        back, _ = cost_of(total.backward)
        assert back.flops == 2 * cost.flops
    real = chain(torch.randn(256, 256, requires_grad=True))
    with counted_launches() as launches:
        real.backward()
    assert back.launches == launches.total


def test_a_generator_of_another_network_is_planned_as_its_own(tmp_path: Path) -> None:
    """Its parameters, adapter and passes are its own; assistant and reference stay as they were."""
    reference = write_twin("PixArtAlphaPipeline", tmp_path / "reference")
    deep = write_twin("PixArtAlphaPipeline", tmp_path / "deep")
    config = json.loads((deep / "transformer" / "config.json").read_text())
    (deep / "transformer" / "config.json").write_text(json.dumps(config | {"num_layers": 3 * config["num_layers"]}))
    settings: dict[str, Any] = {"reference": str(reference), "mode": "lora", "lora_rank": 2, "precision": "fp32"}
    same = make_plan(TrainConfig(generator=str(reference), **settings))
    other = make_plan(TrainConfig(generator=str(deep), **settings))
    own = make_plan(TrainConfig(generator=str(deep), **settings | {"reference": str(deep)}))
    assert same.trained["generator"] == same.trained["assistant"] == other.trained["assistant"]
    assert other.trained["generator"] == own.trained["generator"] > other.trained["assistant"]
    assert other.parameters["generator"] == own.parameters["reference"] > other.parameters["reference"]
    assert other.resident["average"] == own.resident["average"]
    assert other.flops["generator"] == own.flops["generator"] > same.flops["generator"]
    assert other.flops["divergence"] == same.flops["divergence"]
    assert other.transient["generator backward"] == own.transient["generator backward"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_plan_of_pixart_and_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    words = "plan --generator pixart-onestep --reward hps,imagereward --batch 4 --memory 24GB --json"
    assert main(words.split()) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"]["reference"] == pytest.approx(0.611e9, rel=0.01)
    assert plan["parameters"]["hps"] == pytest.approx(0.986e9, rel=0.01)
    assert plan["fits"]
    assert plan["changes"]
    assert plan["peak"] > 24e9 > 1.05 * plan["recommended"]["peak"]
    assert plan["seconds"]["RTX 3090"] is None
    assert plan["recommended"]["seconds"]["H100"] < plan["recommended"]["seconds"]["RTX 3090"]


@pytest.mark.slow
def test_what_is_given_up_saves_memory_and_three_copies_cost_more() -> None:
    config = TrainConfig(
        generator="pixart-onestep", reference="pixart-alpha", rewards={}, batch_size=1, precision="bf16", mode="lora"
    )
    lora, full = make_plan(config), make_plan(config.model_copy(update={"mode": "full"}))
    assert full.peak > 2 * lora.peak
    assert full.trainable == 2 * full.parameters["reference"]
    checkpointed = make_plan(config.model_copy(update={"gradient_checkpointing": True, "decode_checkpointing": True}))
    assert checkpointed.peak < lora.peak
    assert sum(checkpointed.flops.values()) > sum(lora.flops.values())
    assert recommend(config, 2**20, lambda _: checkpointed)[0] is None


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--generator", "pixart-onestp"], "Did you mean 'pixart-onestep'?"),
        (["--generator", "pixart-onestep", "--memory", "lots"], "not an amount of memory"),
        (["--generator", "pixart-onestep", "--reward", "hsp"], "hps"),
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
    from dipp_toolkit.planning.estimate import Step

    costs = {
        name: RewardCosts(1, Cost(flops=flops), Cost(flops=10), way_back=Cost(flops=20))
        for name, flops in (("a", 50), ("b", 70))
    }
    config = TrainConfig(batch_size=4, balance="normalised")
    whole: Any = SimpleNamespace(config=config, rewards=costs)
    assert Step.reward_work(whole) == {"a": Cost(flops=50), "b": Cost(flops=60)}
    whole.config = config.model_copy(update={"reward_batch": 2})
    sliced = Step.reward_work(whole)
    assert sliced == {"a": Cost(flops=100), "b": Cost(flops=140)}
    # Those that are only added up share the way back as well, in nine updates of ten.
    whole.config = TrainConfig(batch_size=4)
    assert Step.reward_work(whole) == {"a": Cost(flops=50), "b": Cost(flops=70 - 10 - 18)}
    whole.config = whole.config.model_copy(update={"reward_batch": 2})
    assert Step.reward_work(whole) == {"a": Cost(flops=100), "b": Cost(flops=140 - 18 - 36)}
    # Learned on latents, a reward looks at one sample of three, and decodes these with others of its kind alone.
    for learned, expected in (("ab", (50 / 3, 60 / 3)), ("a", (50 / 3, 70)), ("b", (50, 70 / 3))):
        whole.config = TrainConfig(batch_size=4, reward_options={name: {"latent": True} for name in learned})
        a, b = expected
        assert Step.reward_work(whole) == {"a": Cost(flops=int(a)), "b": Cost(flops=int(b))}


def test_a_plan_knows_what_latent_rewards_save(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--generator", "emoji-onestep", "--reward", "emoji-clip"]
    plans = []
    for more in ([], ["--set", "reward.emoji-clip.latent=true"]):
        assert main([*words, *more, "--json"]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    plain, latent = plans
    assert latent["flops"]["reward emoji-clip"] == plain["flops"]["reward emoji-clip"] // 3
    assert latent["peak"] == plain["peak"] and latent["flops"]["divergence"] == plain["flops"]["divergence"]
    assert (plain["settings"]["noises_per_prompt"], latent["settings"]["noises_per_prompt"]) == (None, 2)
    assert main([*words, "--set", "reward.emoji-clip.latent=true"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "noises_per_prompt=2" in shown and "Learned on latents: emoji-clip." in shown


def test_a_reward_is_planned_in_its_own_precision_whatever_the_reference_is_kept_in() -> None:
    settings = {"reference": "emoji-reference", "rewards": {"emoji-clip": 1.0}, "precision": "bf16"}
    wide = make_plan(TrainConfig(frozen_precision="bf16", **settings))
    assert wide.resident["emoji-clip"] == 4 * wide.parameters["emoji-clip"]
    assert wide.resident["decoder"] == 2 * wide.parameters["decoder"]
    half = make_plan(TrainConfig(reward_options={"emoji-clip": {"precision": "bf16"}}, **settings))
    assert half.resident["emoji-clip"] == 2 * half.parameters["emoji-clip"]
    assert half.flops["reward emoji-clip"] == wide.flops["reward emoji-clip"]


@pytest.mark.parametrize(("kind", "width"), [("int8", 1.02), ("nf4", 0.58)])
def test_a_plan_knows_what_frozen_weights_of_few_bits_take(kind: Any, width: float) -> None:
    """The emoji world's network is 98.8 % linear layers; what is trained has its gradients and states as before."""
    for mode in ("lora", "full"):
        settings = {"reference": "emoji-reference", "mode": mode, "lora_rank": 8, "precision": "bf16"}
        whole = make_plan(TrainConfig(frozen_precision="bf16", **settings))
        few = make_plan(TrainConfig(frozen_precision=kind, **settings))
        share = few.resident["reference"] / few.parameters["reference"]
        assert share == pytest.approx(width, abs=0.03)
        assert {**few.resident, "reference": 0} == {**whole.resident, "reference": 0}
        assert few.launches["divergence"] > whole.launches["divergence"]
        assert (few.launches["generator"] > whole.launches["generator"]) == (mode == "lora")


EMPTY = Plan(
    settings={}, parameters={}, trained={}, resident={}, transient={"step": 0}, flops={}, launches={}, text_encoders=0
)


def test_a_recommendation_leaves_a_margin() -> None:
    plans: list[TrainConfig] = []

    def plan_of(config: TrainConfig) -> Plan:
        plans.append(config)
        size = 50 if config.decode_checkpointing else 100
        return replace(EMPTY, resident={"weights": size})

    config = TrainConfig(precision="fp32")
    assert recommend(config, 105, plan_of)[1] == {}
    assert recommend(config, 104, plan_of)[1] == {"decode_checkpointing": True}


def test_what_fits_with_narrow_weights_alone_recomputes_nothing() -> None:
    """Narrow weights take less memory and are not cast: no wide ones with something recomputed are looked at."""
    planned: list[TrainConfig] = []

    def plan_of(config: TrainConfig) -> Plan:
        planned.append(config)
        size = 100 - 20 * (config.frozen_precision == "bf16") - 40 * config.gradient_checkpointing
        seconds = 1.0 + config.gradient_checkpointing  # as long, wide or narrow
        return replace(EMPTY, resident={"weights": size}, seconds={"H100": seconds})

    config = TrainConfig(precision="bf16")
    assert recommend(config, 85, plan_of)[1] == {"frozen_precision": "bf16"}
    assert recommend(config, 70, plan_of)[1] == {"frozen_precision": "bf16", "gradient_checkpointing": True}
    assert all(settings.frozen_precision == "bf16" for settings in planned if settings.gradient_checkpointing)


def test_the_fastest_settings_that_fit_are_recommended() -> None:
    """Two pairs of settings fit; the slower one comes first in every order of settings."""
    sizes = {"decode_checkpointing": 30, "gradient_checkpointing": 30, "recompute_generator": 45}
    seconds = {"decode_checkpointing": 3.0, "gradient_checkpointing": 2.0, "recompute_generator": 1.0}

    def plan_of(config: TrainConfig) -> Plan:
        used = [name for name in sizes if getattr(config, name)]
        size = 100 - sum(sizes[name] for name in used)
        took = {"H100": 10 + sum(seconds[name] for name in used)}
        return replace(EMPTY, resident={"weights": size}, seconds=took)

    plan, changes = recommend(TrainConfig(precision="fp32"), 45, plan_of)
    assert changes == {"gradient_checkpointing": True, "recompute_generator": True}
    assert plan is not None
    assert plan.seconds["H100"] == 13


def test_what_could_only_be_slower_than_settings_that_fit_is_not_planned() -> None:
    planned: list[TrainConfig] = []

    def plan_of(config: TrainConfig) -> Plan:
        planned.append(config)
        changed = [name for name in SAME_RESULT if getattr(config, name) != getattr(TrainConfig(), name)]
        size, seconds = (100, 1.0) if not changed else (50, 1.0 + len(changed))
        return replace(EMPTY, resident={"weights": size}, seconds={"H100": seconds})

    config = TrainConfig(batch_size=2, precision="fp32")
    plan, changes = recommend(config, 60, plan_of)
    assert plan is not None and plan.seconds["H100"] == 2.0
    assert changes == {"reward_batch": 1}, "the first of those that take as long"
    assert len(planned) == 3 + len(SAME_RESULT)  # as asked, twice; all of them; and each alone


def test_less_is_given_up_before_anything_is_faster() -> None:
    def plan_of(config: TrainConfig) -> Plan:
        size = 10 if config.mode == "lora" else 50 if config.recompute_generator else 100
        return replace(EMPTY, resident={"weights": size}, seconds={"H100": 1.0 if config.mode == "lora" else 5.0})

    config = TrainConfig(precision="fp32")
    assert recommend(config, 60, plan_of)[1] == {"recompute_generator": True}
    assert recommend(config, 20, plan_of)[1]["mode"] == "lora"


def _by_samples(config: TrainConfig) -> Plan:
    """A plan whose memory is that of its micro-batch and of frozen weights, whatever is recomputed."""
    size = 10 * config.batch_size + (5 if config.frozen_precision == "fp32" else 0)
    size -= 8 if config.activation_offload else 0
    return replace(EMPTY, resident={"weights": size}, seconds={"H100": 1.0})


def test_batches_are_cut_before_anything_that_is_learnt_changes() -> None:
    config = TrainConfig(batch_size=8, precision="bf16", mode="full")
    assert recommend(config, 100, _by_samples)[1] == {}
    assert recommend(config, 86, _by_samples)[1] == {"frozen_precision": "bf16"}
    halves = {"frozen_precision": "bf16", "batch_size": 4, "accumulation": 2}
    assert recommend(config, 50, _by_samples)[1] == halves
    assert recommend(config.model_copy(update={"accumulation": 3}), 50, _by_samples)[1] == halves | {"accumulation": 6}
    # One sample at a time and bf16 come to 10; what waits in the host's memory comes last.
    last = recommend(config, 8, _by_samples)[1]
    assert last == {"frozen_precision": "bf16", "batch_size": 1, "accumulation": 8, "activation_offload": True}
    graphs = config.model_copy(update={"compile": "graphs"})
    plan, thriftiest = recommend(graphs, 8, _by_samples)
    assert plan is None and "activation_offload" not in thriftiest


def test_samples_of_a_prompt_stay_in_one_micro_batch() -> None:
    config = TrainConfig(batch_size=12, noises_per_prompt=4, precision="bf16")
    plan, thriftiest = recommend(config, 1, _by_samples)
    assert plan is None
    assert (thriftiest["batch_size"], thriftiest["accumulation"]) == (4, 3)


def test_frozen_weights_are_rounded_when_nothing_else_is_left() -> None:
    sizes = {"bf16": 40, "int8": 20, "nf4": 10}

    def plan_of(config: TrainConfig) -> Plan:
        trained = 50 if config.mode == "full" else 0
        return replace(EMPTY, resident={"weights": trained + sizes[config.frozen_precision]}, seconds={"H100": 1.0})

    config = TrainConfig(batch_size=1, precision="bf16", frozen_precision="bf16", mode="full", activation_offload=True)
    assert recommend(config, 45, plan_of)[1] == {"mode": "lora"}
    assert recommend(config, 22, plan_of)[1] == {"mode": "lora", "frozen_precision": "int8"}
    assert recommend(config, 11, plan_of)[1] == {"mode": "lora", "frozen_precision": "nf4"}
    plan, thriftiest = recommend(config, 11, plan_of, rounded=False)
    assert plan is None and "frozen_precision" not in thriftiest
    rounded = config.model_copy(update={"frozen_precision": "nf4"})
    assert recommend(rounded, 11, plan_of)[1] == {"mode": "lora"}, "weights of 4 bits are not widened again"


def test_a_group_that_cannot_fit_costs_one_plan() -> None:
    planned = []

    def plan_of(config: TrainConfig) -> Plan:
        planned.append(config)
        return replace(EMPTY, resident={"weights": 100})

    assert recommend(TrainConfig(batch_size=2, precision="bf16", mode="full"), 1, plan_of)[0] is None
    assert (
        len(planned) == 1 + 4 * 3
    )  # as asked; whole batch, one sample, and in the host's memory; whole, by adapters, and these in 8 and 4 bits


EMOJI: dict[str, Any] = {"generator": "emoji-onestep", "reference": "emoji-reference", "batch_size": 8}


@pytest.mark.exhaustive
def test_settings_that_are_recommended_are_accepted_and_fit() -> None:
    thrifty = {"gradient_checkpointing": True, "recompute_generator": True, "frozen_precision": "bf16"}
    config = TrainConfig(**EMOJI, **thrifty, rewards={"emoji-preference": 1.0}, precision="bf16")
    asked = make_plan(config)
    memory = int(1.04 * asked.peak)
    plan, changes = recommend(config, memory)
    assert plan is not None and changes
    followed = make_config({**config.model_dump(exclude_unset=True), **changes})
    assert make_plan(followed).peak * 1.05 <= memory
    assert followed.batch_size * followed.accumulation == config.batch_size


@pytest.mark.exhaustive
def test_a_term_that_differentiates_the_reference_keeps_its_graph() -> None:
    def transient(term: str, **others: Any) -> dict[str, int]:
        config = TrainConfig(**EMOJI, term=term, precision="bf16", rewards={"emoji-preference": 1.0}, **others)
        return make_plan(config).transient

    plain, squared = transient("integral_kl"), transient("score_divergence")
    assert squared["divergence"] > plain["divergence"]
    assert squared["reward emoji-preference"] == plain["reward emoji-preference"]
    assert transient("score_divergence", gradient_checkpointing=True)["divergence"] < squared["divergence"]
    diffused = transient("diffused_reward")
    assert diffused["reward emoji-preference"] > plain["reward emoji-preference"]
    assert plain["divergence"] < diffused["divergence"] < squared["divergence"]


def test_cuda_graphs_hold_what_the_networks_passes_need() -> None:
    config = TrainConfig(**EMOJI, precision="bf16", rewards={"emoji-preference": 1.0})
    plain, graphs = make_plan(config), make_plan(config.model_copy(update={"compile": "graphs"}))
    passes = {name: size for name, size in plain.transient.items() if not name.startswith("reward")}
    held = graphs.resident["CUDA graphs"]
    assert 0 < held <= max(passes.values()) and held >= plain.transient["divergence"]
    assert graphs.resident == plain.resident | {"CUDA graphs": held}
    assert graphs.peak >= plain.peak
    cpu = config.model_copy(update={"compile": "graphs", "device": "cpu"})
    assert "CUDA graphs" not in make_plan(cpu).resident


def test_rewards_in_tf32_take_less_time_where_a_gpu_has_products_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipp_toolkit.planning.estimate.LAUNCH", 0.0)
    config = TrainConfig(**EMOJI, rewards={"emoji-preference": 1.0}, precision="bf16")
    plain, rounded = make_plan(config), make_plan(config.model_copy(update={"reward_tf32": True}))
    assert rounded.flops == plain.flops
    reward = "reward emoji-preference"
    assert rounded.pieces["A100"][reward] < plain.pieces["A100"][reward]
    assert rounded.pieces["RTX 3090"] == plain.pieces["RTX 3090"]


def test_what_fits_nowhere_says_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    resident = {"weights": 3 * 2**30, "CUDA graphs": 2**30}
    plan = replace(EMPTY, settings={"batch_size": 4}, resident=resident, flops={"step": 1}).as_dict()
    changes = {"batch_size": 1, "accumulation": 4}
    describe({**plan, "memory": 10**9, "fits": False, "changes": changes, "recommended": None, "least": 2 * 2**30})
    shown = " ".join(capsys.readouterr().out.split())
    assert "Nothing fits 0.93 GiB with 5% to spare; as requested it peaks at 4.00 GiB" in shown
    assert "(--set batch_size=1 --set accumulation=4) at no less than 2.00 GiB" in shown
    assert "What CUDA graphs hold is an estimate" in shown


def test_a_machine_that_cannot_hold_a_step_shows_no_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {"RTX 3090": 2.0, "H100": 1.0}
    plan = replace(
        EMPTY,
        settings={"batch_size": 4},
        parameters={"reference": 1},
        trained={"generator": 1, "assistant": 1},
        resident={"weights": 23 * 10**9},
        flops={"step": 1},
        seconds=seconds,
    )
    assert plan.as_dict()["seconds"] == {"RTX 3090": None, "H100": 1.0}
    describe(plan.as_dict())
    shown = capsys.readouterr().out
    assert "does not fit" in shown
    assert shown.index("batch_size=4") < shown.index("memory of a step")


def test_a_plan_of_the_embedded_world_of_a_folder_and_of_a_run_s_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--generator", "emoji-onestep", "--json"]) == 0
    world = json.loads(capsys.readouterr().out)
    assert world["parameters"]["reference"] == pytest.approx(4.0e6, rel=0.02)
    assert world["uncounted"] == []
    assert world["seconds"]["RTX 3090"] is not None

    twin = write_twin("StableDiffusionPipeline", tmp_path / "twin")
    (tmp_path / "mine.py").write_text("def score(images, prompts):\n    return images.mean((1, 2, 3))\n")
    settings = {"generator": str(twin), "reference": str(twin), "rewards": {f"{tmp_path}/mine.py:score": 1.0}}
    (tmp_path / "config.yaml").write_text(json.dumps(settings | {"batch_size": 2}))
    assert main(["plan", "--config", str(tmp_path / "config.yaml"), "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert own["settings"]["batch_size"] == 2
    assert own["uncounted"] == [f"{tmp_path}/mine.py:score"]
    assert own["flops"][f"reward {tmp_path}/mine.py:score"] > 0, "decoding is counted"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--generator", "sdxl"], "Generators that are trained against it: diff-instruct-sdxl, dipp-sdxl,"),
        (["--reference", "sdxl-dmd2"], "is a one-step generator"),
        (["--generator", "somebody/something"], "hf download somebody/something"),
    ],
)
def test_a_plan_says_which_names_there_are(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert part in capsys.readouterr().err


def test_a_slow_plan_says_that_it_is_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    with announced_when_slow(0.0):
        deadline = 10_000
        while not (said := capsys.readouterr().err) and deadline:
            deadline -= 1
            time.sleep(0.001)
    assert "Building the networks" in said
    with announced_when_slow(1000.0):
        pass
    assert capsys.readouterr().err == ""
