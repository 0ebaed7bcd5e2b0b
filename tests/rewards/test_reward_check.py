"""`dipp reward check`: rewards that are broken in one way, and those that are not broken."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipp_cli.app import main
from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.checks import costs, formats
from dipp_toolkit.rewards.checks.modules import modules_of
from dipp_toolkit.rewards.checks.run import CHECKS, check_reward
from dipp_toolkit.rewards.checks.verdicts import CheckRow, compare
from dipp_toolkit.rewards.loading import FunctionReward, load_reward

Score = Callable[[Tensor, Sequence[str]], Any]


def contrast(images: Tensor, prompts: Sequence[str] = ()) -> Tensor:
    """A good reward: smooth, of its own image alone."""
    images = images.float()
    return (images[:, 2] - images[:, 0]).mean((1, 2)) + images.var((1, 2, 3), correction=0)


def checked(score: Score, differentiable: bool | None = True) -> dict[str, CheckRow]:
    """The rows of a function, by name."""
    reward = FunctionReward("mine", score)
    score.differentiable = differentiable  # type: ignore[attr-defined]
    return rows_of(reward)


def rows_of(reward: Any, size: int = 24) -> dict[str, CheckRow]:
    rows = check_reward(reward, "mine", size=size, seconds=0.001)
    assert [row.name for row in rows] == [check.name for check in CHECKS]
    return {row.name: row for row in rows}


def with_status(rows: dict[str, CheckRow], *statuses: str) -> set[str]:
    return {name for name, row in rows.items() if row.status in statuses}


# Rewards without a fault.


@pytest.mark.parametrize("name", ["colourfulness", "sharpness", "emoji-preference", "emoji-clip", "jpeg"])
def test_built_in_rewards_pass(name: str) -> None:
    rows = {row.name: row for row in check_reward(load_reward(name), name, seconds=0.001)}
    assert with_status(rows, "failed", "warning") == set()


def test_a_plain_function_passes() -> None:
    rows = checked(contrast, None)
    assert with_status(rows, "failed", "warning") == set()
    assert with_status(rows, "skipped") == {"devices", "parameters"} - (
        {"devices"} if formats.other_device(torch.device("cpu")) else set()
    )


def test_nothing_is_left_to_chance() -> None:
    first, again = checked(contrast), checked(contrast)
    for timed in ("speed", "memory"):
        del first[timed], again[timed]
    assert first == again


# Rewards with one fault each.


class Stateful:
    """Scores that wander with every call."""

    differentiable = True

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls += 1
        return contrast(images) * (1 + self.calls)


def only(condition: Callable[[Tensor], Any], fault: Callable[[Tensor], Tensor]) -> Score:
    """A good reward, but for images where the condition holds."""
    return lambda images, prompts: fault(images) if condition(images) else contrast(images)


def fail(*_: Any) -> Tensor:
    raise ValueError("no such thing")


class HalfGradient(torch.autograd.Function):
    """The identity, and half its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad / 2


class LeakyGradient(torch.autograd.Function):
    """Scores of their own images, whose gradient spreads over the batch."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.save_for_backward(images)
        return images.mean((1, 2, 3))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (images,) = ctx.saved_tensors
        return grad.mean().expand_as(images) / images[0].numel()


def reads_prompts(images: Tensor, prompts: Sequence[str]) -> Tensor:
    for prompt in prompts:
        prompt.encode("ascii")
    return contrast(images)


def in_place(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return contrast(images.mul_(2))


def clears_prompts(images: Tensor, prompts: list[str]) -> Tensor:
    prompts.sort()
    return contrast(images)


def no_more_gradients(images: Tensor, prompts: Sequence[str]) -> Tensor:
    scores = contrast(images)
    torch.set_grad_enabled(False)
    return scores


def double_from_here(images: Tensor, prompts: Sequence[str]) -> Tensor:
    scores = contrast(images)
    torch.set_default_dtype(torch.float64)
    return scores


def own_backward(images: Tensor, prompts: Sequence[str]) -> Tensor:
    scores = contrast(images)
    if scores.requires_grad:
        scores.sum().backward(retain_graph=True)
    return scores


BROKEN: dict[str, tuple[str, Score | Any]] = {
    "a sum over the batch": ("scores", lambda images, prompts: contrast(images).sum()),
    "a column": ("scores", lambda images, prompts: contrast(images)[:, None]),
    "text": ("scores", lambda images, prompts: ["good"] * len(images)),
    "not a number": ("scores", lambda images, prompts: contrast(images) * float("nan")),
    "an exception": ("scores", fail),
    "squeezed to nothing": ("batch sizes", lambda images, prompts: contrast(images).squeeze()),
    "square images alone": ("image sizes", only(lambda images: images.shape[2] != images.shape[3], fail)),
    "infinite on black": (
        "unusual images",
        lambda images, prompts: contrast(images) + images.mean((1, 2, 3)).log(),
    ),
    "ASCII alone": ("prompts", reads_prompts),
    "noise": ("repeats", lambda images, prompts: contrast(images) + 0.1 * torch.randn(len(images))),
    "state": ("repeats", Stateful()),
    "centred over the batch": (
        "own image alone",
        lambda images, prompts: contrast(images) - contrast(images).mean(),
    ),
    "sorted": ("own image alone", lambda images, prompts: contrast(images).sort().values),
    "detached": ("differentiable", lambda images, prompts: contrast(images.detach())),
    "through NumPy": ("differentiable", lambda images, prompts: images.numpy().mean((1, 2, 3))),
    "a graph to nowhere": (
        "differentiable",
        lambda images, prompts: contrast(images.detach()) + torch.zeros(1, requires_grad=True),
    ),
    "an infinite slope on plain images": (
        "gradient",
        lambda images, prompts: contrast(images) + images.var((1, 2, 3), correction=0).sqrt(),
    ),
    "no slope": ("gradient", lambda images, prompts: contrast(images).detach() + 0 * contrast(images)),
    "half the gradient": ("gradient is right", lambda images, prompts: HalfGradient.apply(contrast(images))),
    "a detached part": (
        "gradient is right",
        lambda images, prompts: contrast(images) + 2 * images[:, :, ::2].detach().mean((1, 2, 3)),
    ),
    "a leaky gradient": ("gradient of own image", lambda images, prompts: LeakyGradient.apply(images.float())),
    "changed images": ("inputs unchanged", in_place),
    "changed prompts": ("inputs unchanged", clears_prompts),
    "gradients switched off": ("global state", no_more_gradients),
    "another default dtype": ("global state", double_from_here),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_fault_fails_its_own_check(fault: str) -> None:
    expected, score = BROKEN[fault]
    rows = rows_of(score) if isinstance(score, Stateful) else checked(score)
    assert with_status(rows, "failed") == {expected}
    assert rows[expected].found.endswith(".")
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_an_exception_is_a_sentence_of_its_check() -> None:
    rows = checked(only(lambda images: len(images) == 1, fail))
    assert with_status(rows, "failed") == {"batch sizes"}
    assert rows["batch sizes"].found.startswith("With a batch of 1: It raised ValueError: no such thing (")
    assert rows["batch sizes"].found.endswith('test_reward_check.py, line 96: raise ValueError("no such thing")).')
    assert rows["own image alone"].found == "Needs the check 'batch sizes' to hold first."


def test_dropout_in_training_mode_is_named() -> None:
    class Dropping(nn.Module):
        differentiable = True

        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            return contrast(self.drop(images))

    rows = rows_of(Dropping())
    assert with_status(rows, "failed") == {"repeats"}
    assert ".eval()" in rows["repeats"].advice
    assert rows_of(Dropping().eval())["repeats"].status == "ok"


def test_gradients_left_on_a_network_are_found() -> None:
    network = nn.Linear(3, 1)

    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        scores = network(images.float().mean((2, 3)))[:, 0]
        if scores.requires_grad:
            scores.sum().backward(retain_graph=True)
        return scores

    rows = checked(score)
    assert with_status(rows, "failed") == {"global state"}
    assert checked(own_backward)["global state"].status == "failed"


# What deserves a warning, or a remark.


def test_a_function_without_a_gradient_is_a_black_box() -> None:
    for score in (
        lambda images, prompts: images.numpy().mean((1, 2, 3)),
        lambda images, prompts: [0.5, *range(1, len(images))],
    ):
        rows = checked(score, None)
        assert rows["differentiable"].status == "warning"
        assert "black box" in rows["differentiable"].found
        assert rows["gradient"].found == "It has no gradient."
    assert checked(lambda images, prompts: images.numpy().mean((1, 2, 3)), False)["differentiable"].status == "ok"


def test_a_hidden_gradient_is_pointed_out() -> None:
    assert checked(contrast, False)["differentiable"].status == "warning"


def test_small_pictures_are_a_matter_for_a_warning() -> None:
    rows = checked(only(lambda images: images.shape[-1] < 16, fail))
    assert with_status(rows, "warning", "failed") == {"image sizes"}


def test_a_refusal_in_its_own_words_is_a_warning() -> None:
    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        if max(map(len, prompts)) > 1000:
            raise RequestError("This prompt is too long.")
        return contrast(images)

    rows = checked(score)
    assert with_status(rows, "warning", "failed") == {"prompts"}
    assert rows["prompts"].found == "It refuses 10,000 characters: This prompt is too long."


def test_shared_random_numbers() -> None:
    def draws(images: Tensor, prompts: Sequence[str]) -> Tensor:
        torch.rand(1)
        return contrast(images)

    def draws_numpy(images: Tensor, prompts: Sequence[str]) -> Tensor:
        np.random.rand()
        return contrast(images)

    state = torch.get_rng_state()
    assert with_status(checked(draws), "warning", "failed") == {"random numbers"}
    assert torch.equal(torch.get_rng_state(), state)
    assert "NumPy" in checked(draws_numpy)["random numbers"].found


def test_views_and_narrow_numbers() -> None:
    views = checked(lambda images, prompts: contrast(images.view(len(images), 3, -1)[..., None]))
    assert with_status(views, "warning", "failed") == {"memory layouts"}
    memory = checked(lambda images, prompts: contrast(images) * (1 if images.is_contiguous() else 2))
    assert with_status(memory, "warning", "failed") == {"memory layouts"}
    weights = torch.ones(3, 1)
    narrow = checked(lambda images, prompts: (images.mean((2, 3)) @ weights)[:, 0])
    assert with_status(narrow, "warning", "failed") == {"bfloat16"}


def test_scores_too_large_for_differences() -> None:
    rows = checked(lambda images, prompts: contrast(images) + 1e5)
    assert rows["gradient is right"].status == "warning"
    assert "float32" in rows["gradient is right"].found


def test_whether_the_prompt_matters() -> None:
    assert "does not matter" in checked(contrast)["prompt matters"].found
    lengths = checked(
        lambda images, prompts: contrast(images) + torch.tensor([float(len(prompt)) for prompt in prompts])
    )
    assert "moves scores by" in lengths["prompt matters"].found


# Costs, and networks.


class Hidden:
    """A network in a list in an attribute."""

    differentiable = True

    def __init__(self) -> None:
        self.parts = [{"head": nn.Linear(3, 1).requires_grad_(False).eval()}]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.parts[0]["head"](images.float().mean((2, 3)))[:, 0]


def test_parameters_are_found_wherever_they_are() -> None:
    hidden = Hidden()
    head = hidden.parts[0]["head"]
    rows = rows_of(hidden)
    assert rows["parameters"].status == "ok"
    assert rows["parameters"].found.startswith("4 parameters, ")
    assert modules_of(hidden) == [head]
    assert modules_of(FunctionReward("mine", lambda images, prompts: head(images))) == [head]
    assert modules_of(nn.Sequential(head))[0][0] is head
    assert modules_of(head.forward) == [head]
    assert modules_of(contrast) == []
    assert modules_of(deque([head])) == [head]  # a sequence that takes no slices; a worker's last words are in one
    hidden.library = torch  # type: ignore[attr-defined]
    assert modules_of(hidden) == [head]
    assert rows_of(hidden)["memory"].found.startswith("The graph of a batch of 4 holds ")


def test_what_a_graph_holds_is_counted() -> None:
    from dipp_toolkit.rewards.checks.probe import Probe

    def score(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.square().sum((1, 2, 3))  # saves the images alone

    probe = Probe("mine", FunctionReward("mine", score), torch.device("cpu"), size=32)
    assert costs.saved_bytes(probe) == 4 * 3 * 32 * 32 * 4


def test_closeness() -> None:
    one = torch.tensor([1.0, 2.0])
    assert compare(one, one + 1e-6) == "same"
    assert compare(one, one + 1e-3) == "near"
    assert compare(one, one + 1e-1) == "different"
    assert compare(one, one + 1e-2, spread=1.0) == "near"


def test_a_reward_that_does_not_come_along_to_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(Hidden):
        def to(self, device: torch.device) -> Stubborn:
            if device.type == "meta":
                raise RuntimeError("I stay")
            return self

    monkeypatch.setattr(formats, "other_device", lambda device: torch.device("meta"))
    rows = rows_of(Stubborn())
    assert with_status(rows, "failed") == {"devices"}
    assert "I stay" in rows["devices"].found
    monkeypatch.setattr(formats, "other_device", lambda device: torch.device("cpu"))
    assert rows_of(Stubborn())["devices"].status == "ok"


def test_a_size_that_is_too_small() -> None:
    with pytest.raises(RequestError, match="4 pixels"):
        check_reward(FunctionReward("mine", contrast), "mine", size=4)


def test_the_documentation_knows_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "score-and-check.md").read_text(encoding="utf-8")
    assert [check.name for check in CHECKS if f"`{check.name}`" not in page] == []


# The command.

MINE = """
import torch

def good(images, prompts):
    return images[:, 2].mean((1, 2)) - images[:, 0].mean((1, 2))

def noisy(images, prompts):
    return good(images, prompts) + torch.randn(len(images))

class Scaled:
    differentiable = True

    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, images, prompts):
        print("a library talks")
        return self.scale * good(images, prompts)

class Unbuildable:
    def __init__(self):
        raise OSError("no weights")

    def __call__(self, images, prompts):
        pass
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "my_reward.py"
    path.write_text(MINE, encoding="utf-8")
    return str(path)


def check(words: Sequence[str]) -> int:
    return main(["reward", "check", *words, "--device", "cpu", "--size", "24"])


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "images_a_second", lambda probe, call: 100.0)


def test_the_command_prints_a_table(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([f"{mine}:good"]) == 0
    said = capsys.readouterr()
    for check_ in CHECKS:
        assert check_.name in said.out
    assert "Nothing failed" in said.out
    assert said.err == ""


def test_the_command_fails_with_a_broken_reward(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([f"{mine}:noisy"]) == 1
    assert "1 of 21 checks failed, 1 warning." in capsys.readouterr().out


def test_the_command_as_json(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([f"{mine}:Scaled", "--json", "--set", f"reward.{mine}:Scaled.scale=3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["reward"] == f"{mine}:Scaled"
    assert result["passed"] is True
    assert (result["device"], result["size"]) == ("cpu", 24)
    assert [row["name"] for row in result["checks"]] == [item.name for item in CHECKS]
    assert set(result["checks"][0]) == {"name", "status", "found", "advice"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["FILE:Unbuildable"], ["cannot be loaded", "no weights"]),
        (["FILE:gode"], ["Did you mean 'good'"]),
        (["colorfulness"], ["Did you mean 'colourfulness'"]),
        (["colourfulness", "--size", "8"], ["--size is 8"]),
        (["colourfulness", "--set", "steps=3"], ["--set steps", "reward.NAME.OPTION=VALUE"]),
        (["colourfulness", "--set", "reward.hps.version=v2.1"], ["'hps'", "not used here"]),
        (["FILE:Scaled", "--set", "reward.FILE:Scaled.size=3"], ["no such option"]),
        (["colourfulness", "--device", "cuda:77"], ["cuda:77"]),
    ],
)
def test_wrong_requests(mine: str, words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", "check", *(word.replace("FILE", mine) for word in words)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    for part in expected:
        assert part in said.err
