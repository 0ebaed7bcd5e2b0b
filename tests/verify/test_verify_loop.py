"""`dipp verify --loop`: right loops hold every row, and each fault fails the row that names it.

The loop is the one of docs/guide/verify-a-loop.md; a fault is a change of a line or two of it.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from dipp_cli.app import main
from dipp_toolkit.errors import PluginError, RequestError, RunError
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.verify.loops import LoopRow, run_loop
from dipp_toolkit.verify.loops.chain import Chain
from dipp_toolkit.verify.loops.levels import Levels

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "verify-a-loop.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```python\n(# dmd2.py\n.*?)```", PAGE, re.DOTALL).group(1)  # type: ignore[union-attr]
OWN = "dipp_toolkit.verify.loops.own_loop"
QUICK = 2000
"""Samples a step: a test's share of what a person waits for."""

OWN_TIME = "torch.full((batch,), self.timesteps[k])"
FITTED = "            x0 = self.generate(batch).detach()\n"
NORMALISED = "            grad = (fake - real) / (x0 - real).abs().mean((1, 2, 3), keepdim=True)\n"
MEASURED = "        with torch.no_grad():\n            x_t = self.noised(x0, t)"
CLEARED = "        self.generator_optimizer.zero_grad()\n"
STEPPED = "        self.generator_optimizer.step()\n"
DENOISED = "            x_t = world.alpha(t) * x0 + world.sigma(t) * noise\n"

Change = tuple[str, str]

FAULTS: dict[str, tuple[str, str, str, list[Change]]] = {
    "step k reads noised data (DiffSynth-Studio #1627)": (
        "distillation",
        "inputs of step 4",
        "backward simulation is missing",
        [("self.noised(self.sample(batch, k),", "self.noised(self.world.data(batch),")],
    ),
    "step k reads fresh noise": (
        "distillation",
        "inputs of step 3",
        "pure noise",
        [("x_t = self.noised(self.sample(batch, k),", "x_t = torch.randn_like(x_t); (0,")],
    ),
    "step k reads another noise level": (
        "distillation",
        "inputs of step 4",
        "noise level",
        [(f"(self.sample(batch, k), {OWN_TIME})", "(self.sample(batch, k), torch.tensor([400]))")],
    ),
    "times off by one": (
        "distillation",
        "times in training",
        "off by one",
        [(f"x_t, {OWN_TIME}, self", f"x_t, {OWN_TIME} - 1, self")],
    ),
    "another sampler": (
        "distillation",
        "sampling, step 2",
        "the sampler that the adapter states",
        [("x_t = self.noised(x0, torch.full((batch,), self.timesteps[k + 1]))", "x_t = x_t")],
    ),
    "stale samples": (
        "distillation",
        "fake score: samples",
        "kept from earlier updates",
        [(FITTED, f"{FITTED.replace('x0 =', 'new =')}            x0, self.old = getattr(self, 'old', new), new\n")],
    ),
    "the fake score learns data": (
        "distillation", "fake score: samples", "on noised data", [(FITTED, "            x0 = world.data(batch)\n")]
    ),
    "the fake score is told other times": (
        "distillation",
        "fake score: samples",
        "another time",
        [(DENOISED, DENOISED.replace("(t)", "((t + 60).clamp(max=999))"))],
    ),
    "the fake score learns the last step alone": (
        "distillation", "fake score: steps", "other steps", [(FITTED, "            x0 = self.sample(batch).detach()\n")]
    ),
    "the fake score learns another prediction": (
        "distillation", "fake score: bias", "prediction type", [("condition), noise)", "condition), x0)")]
    ),
    "the fake score unlearns": (
        "distillation", "fake score: way back", "wrong sign", [("loss = F.mse_loss(world", "loss = -F.mse_loss(world")]
    ),
    "the fake score keeps the generator's gradients": (
        "distillation",
        "fake score: gradient followed",
        "zero_grad",
        [("            self.fake_optimizer.zero_grad()\n", "")],
    ),
    "noise at another time than the networks are told": (
        "distillation",
        "noised samples",
        "another time",
        [(MEASURED, MEASURED.replace("(x0, t)", "(x0, (t + 60).clamp(max=999))"))],
    ),
    "wrong sign": ("distillation", "gradient on samples", "wrong sign", [("(fake - real) /", "(real - fake) /")]),
    "networks in each other's place": (
        "distillation",
        "gradient on samples",
        "each other's place",
        [
            ("self.x0(world.fake_score, x_t", "self.x0(world.reference, x_t"),
            ("self.x0(world.reference, x_t, t, prompt)", "self.x0(world.fake_score, x_t, t, prompt)"),
        ],
    ),
    "gradient through the networks": (
        "distillation",
        "gradient on samples",
        "missing detach",
        [(MEASURED, MEASURED.replace("with torch.no_grad()", "if 1")), ("(x0 - grad).detach()", "x0.detach() - grad")],
    ),
    "gradient through the normaliser": (
        "distillation",
        "gradient on samples",
        "normaliser",
        [
            (
                "loss = 0.5 * F.mse_loss(x0, (x0 - grad).detach())",
                "loss = ((fake - real) * x0 / (x0 - real).abs().mean((1, 2, 3), keepdim=True)).mean()",
            )
        ],
    ),
    "guidance on the fake score": (
        "guidance",
        "fake score: prompt",
        "guidance on the fake score",
        [
            (
                NORMALISED,
                "            none = self.x0(world.fake_score, x_t, t, empty)\n"
                f"            fake = none + world.guidance * (fake - none)\n{NORMALISED}",
            )
        ],
    ),
    "the other convention of guidance (FastVideo #822)": (
        "guidance", "guidance", "one more than asked", [("real = real_empty +", "real = real +")]
    ),
    "no guidance": (
        "guidance", "guidance", "not followed", [("real_empty + world.guidance * (real - real_empty)", "real")]
    ),
    "gradients pile up": ("distillation", "gradient followed", "no zero_grad", [(CLEARED, "")]),
    "samples are not detached": (
        "distillation",
        "gradient followed",
        "not detached",
        [(FITTED, FITTED.replace(".detach()", "")), (CLEARED, ""), (STEPPED, f"{STEPPED}{CLEARED}")],
    ),
}  # fmt: skip


def broken(changes: list[Change], folder: Path) -> str:
    """The name of the example with lines of it changed."""
    text = EXAMPLE
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    (folder / "broken.py").write_text(text, encoding="utf-8")
    return f"{folder / 'broken.py'}:DMD2"


def failures(rows: list[LoopRow]) -> dict[str, LoopRow]:
    return {row.quantity: row for row in rows if not row.passed}


SIBLINGS = (
    "step k reads fresh noise",
    "step k reads another noise level",
    "the fake score learns data",
    "the fake score is told other times",
    "the fake score keeps the generator's gradients",
    "networks in each other's place",
    "gradient through the normaliser",
    "no guidance",
)
"""Faults whose row another fault fails as well."""


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=[pytest.mark.exhaustive] if fault in SIBLINGS else []) for fault in FAULTS],
)
def test_a_fault_fails_the_row_that_names_it(fault: str, tmp_path: Path) -> None:
    case, quantity, words, changes = FAULTS[fault]
    rows = QUICK if quantity != "fake score: steps" else 6 * QUICK  # the share of a step needs many updates
    failed = failures(run_loop(broken(changes, tmp_path), [case], rows=rows))
    assert quantity in failed
    assert words in failed[quantity].meaning
    assert failed[quantity].error > 1.3 * failed[quantity].tolerance


def test_the_example_holds_every_row(tmp_path: Path) -> None:
    rows = run_loop(broken([], tmp_path), rows=QUICK)
    assert failures(rows) == {}
    assert {row.case for row in rows} == {"distillation", "guidance"}
    assert {"inputs of step 4", "sampling, step 4", "fake score: steps", "gradient on parameters"} <= {
        row.quantity for row in rows
    }


@pytest.mark.parametrize("loop", ["OneStep", "FewSteps", "ThroughSteps"])
def test_the_toolkits_own_engine_holds_every_row(loop: str) -> None:
    rows = run_loop(f"{OWN}:{loop}", ["linear"] if loop == "OneStep" else ["guidance"], rows=QUICK)
    assert failures(rows) == {}
    assert ("reward" in {row.quantity for row in rows}) == (loop == "OneStep")


def test_a_function_may_be_the_step(tmp_path: Path) -> None:
    name = broken([], tmp_path)
    file = Path(name.rpartition(":")[0])
    text = "\n\ndef train(world):\n    DMD2(world).step()\n\n\ntrain.timesteps = DMD2.timesteps\n"
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")
    rows = run_loop(f"{file}:train", ["distillation"], rows=QUICK)
    assert failures(rows) == {}
    assert "sampling, step 1" not in {row.quantity for row in rows}


def test_a_fake_score_that_is_asked_without_a_prompt_and_not_heard_is_no_fault(tmp_path: Path) -> None:
    unheard = f"            self.x0(world.fake_score, x_t, t, empty)\n{NORMALISED}"
    rows = run_loop(broken([(NORMALISED, unheard)], tmp_path), ["guidance"], rows=QUICK)
    assert failures(rows) == {}
    assert next(row.reached for row in rows if row.quantity == "fake score: prompt") == 0.5


def test_a_reward_of_the_wrong_sign_or_scale_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from dipp_toolkit.verify.loops.own_loop import WorldReward

    right = WorldReward.__call__
    for factor in (-1.0, 3.0):
        monkeypatch.setattr(
            WorldReward, "__call__", lambda self, images, prompts, by=factor: by * right(self, images, prompts)
        )
        row = failures(run_loop(f"{OWN}:OneStep", ["linear"], rows=QUICK))["reward"]
        assert row.reached == pytest.approx(factor, rel=1e-3)


def test_a_stated_weighting_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    from dipp_toolkit.verify.loops.own_loop import OneStep

    monkeypatch.setattr(OneStep, "weighting", staticmethod(lambda alpha, sigma: 2 * (alpha / sigma) ** 2))
    row = failures(run_loop(f"{OWN}:OneStep", ["distillation"], rows=QUICK))["weighting"]
    assert row.reached == pytest.approx(0.5, rel=1e-3)


def test_the_chain_makes_one_law_at_every_step_and_knows_what_each_reads() -> None:
    law = Gaussian(
        torch.tensor([0.3, -0.2, 0.5]).double(), torch.tensor([[1, 0.2, 0], [0.2, 0.5, 0.1], [0, 0.1, 0.7]]).double()
    )
    alpha, sigma = Levels("vp")(torch.tensor([999.0, 600.0, 200.0]))
    for sampler in ("renoise", "ode"):
        chain = Chain(alpha, sigma, sampler)
        matrices, biases = chain.solve(law)
        random = torch.Generator().manual_seed(0)
        x = torch.randn(200_000, 3, generator=random, dtype=torch.float64)
        for step, read in enumerate(chain.reads(matrices, biases)):
            torch.testing.assert_close(x.mean(0), read.mean, atol=0.02, rtol=0)
            torch.testing.assert_close(x.mT.cov(), read.covariance, atol=0.02, rtol=0)
            made = chain.made(read, matrices[step], biases[step])
            torch.testing.assert_close(made.mean, law.mean)
            torch.testing.assert_close(made.covariance, law.covariance)
            x0 = x @ matrices[step].mT + biases[step]
            if step < 2:
                noise = (
                    torch.randn(x.shape, generator=random, dtype=x.dtype)
                    if sampler == "renoise"
                    else (x - alpha[step] * x0) / sigma[step]
                )
                x = alpha[step + 1] * x0 + sigma[step + 1] * noise


def test_the_world_moves_nothing_and_leaves_no_hook_and_no_random_state(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first = run_loop(broken([], tmp_path), ["distillation"], rows=QUICK)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert run_loop(broken([], tmp_path), ["distillation"], rows=QUICK) == first
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight], lr=0.1).step()
    assert weight.item() == pytest.approx(0.9)


ADAPTERS = """
import torch

class Base:
    def __init__(self, world):
        self.world = world
    def step(self):
        world = self.world
        world.generator(world.noise(4), 999, world.prompt(4))
        world.fake_score(world.noise(4), 5, world.prompt(4))
        world.reference(world.noise(4), 5, world.prompt(4))
class Idle(Base):
    def step(self): pass
class Raises(Base):
    def step(self): return 1 / 0
class Setup:
    def __init__(self, world): raise KeyError("unet")
class Still(Base): pass
class NoStep:
    def __init__(self, world): pass
class Late(Base):
    def step(self): self.world.generator(self.world.noise(4), 1000, self.world.prompt(4))
class Flat(Base):
    def step(self): self.world.generator(torch.randn(4, 4, 8, 8), 999, self.world.prompt(4))
class Alone(Base):
    def __init__(self, world):
        super().__init__(world)
        both = [*world.generator.parameters(), *world.fake_score.parameters()]
        self.optimizer = torch.optim.Adam(both)
    def step(self):
        super().step()
        self.world.generator(self.world.noise(4), 999, self.world.prompt(4)).square().mean().backward()
        x_t = self.world.noise(4)
        self.world.fake_score(x_t, 5, self.world.prompt(4)).square().mean().backward()
        self.optimizer.step()
class Prediction(Base): prediction = "eps"
class Rising(Base): timesteps = (249, 999)
class Cases(Base): cases = ("guidence",)
class Weighting(Base): weighting = 3
def two(world, other): pass
number = 3
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Idle", "never called world.generator in 40 calls of step()"),
        ("Raises", r"failed in its step with ZeroDivisionError: division by zero \(.*line 15"),
        ("Setup", "failed in its setup with KeyError: 'unet'"),
        ("Still", "no torch optimiser made a step on world.generator"),
        ("NoStep", r"without a method step\(\)"),
        ("Late", "at a timestep of 1000; this world's lie between 0 and 999"),
        ("Flat", r"x_t of shape \(4, 4, 8, 8\); in this world it is \(batch, 3, 1, 1\)"),
        ("Alone", "without asking world.fake_score about the samples"),
        ("Prediction", "prediction='eps'; expected one of epsilon"),
        ("Rising", "expected 1 to 8 falling numbers"),
        ("Cases", "Did you mean 'guidance'"),
        ("Weighting", "a weighting that cannot be called"),
        ("two", "expected one argument, the world"),
        ("number", "is a int; expected a class"),
        ("Nobody", "defines no 'Nobody'"),
    ],
)
def test_what_cannot_be_looked_at_is_a_sentence(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "adapters.py").write_text(ADAPTERS, encoding="utf-8")
    with pytest.raises((PluginError, RequestError, RunError), match=words):
        run_loop(f"{tmp_path / 'adapters.py'}:{name}", rows=QUICK)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipp_toolkit.verify.loops.run_loop", partial(run_loop, rows=QUICK))
    name = broken(FAULTS["wrong sign"][3], tmp_path)
    assert main(["verify", "--loop", name, "--case", "distillation"]) == 1
    shown = capsys.readouterr().out
    assert "distillation, gradient on samples: The gradient on a sample points away from the reference" in shown
    assert "2 of " in shown
    assert main(["verify", "--loop", name, "--case", "distillation", "--json"]) == 1
    rows = {row["quantity"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["gradient on samples"]["reached"] == pytest.approx(-1, abs=1e-3)
    assert not rows["gradient on samples"]["passed"]
    assert rows["inputs of step 4"]["passed"]
    assert rows["inputs of step 4"]["meaning"] == ""
    assert main(["verify", "--loop", name, "--term", "integral_kl"]) == 2
    assert "without --term" in capsys.readouterr().err
    assert main(["verify", "--loop", name, "--case", "linear"]) == 2
    assert "does not support the case 'linear'" in capsys.readouterr().err
