"""The messages of rewards that live elsewhere: what goes in comes out, and no bytes whatever do harm."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import DippError, RunError
from dipp_toolkit.models.decoding import RisingClamp
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.evaluate import WeightedTerm, evaluate_objective
from dipp_toolkit.objective.mixing.mix import RewardMix
from dipp_toolkit.objective.mixing.scale import MEASURED
from dipp_toolkit.objective.result import read_result
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.objective.terms.shared_decode import SharedDecode
from dipp_toolkit.rewards.loading import FunctionReward
from dipp_toolkit.rewards.remote import wire
from dipp_toolkit.rewards.remote.proxy import ProxyReward
from dipp_toolkit.rewards.remote.wire import ProtocolError
from dipp_toolkit.rewards.scores import as_scores
from dipp_toolkit.training.loop import step_metrics

IMAGES = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(1))
PROMPTS = ["a cat", '日本 \x00 \U0001f600 "quoted"']


@pytest.mark.parametrize("gradients", [True, False])
def test_a_request_comes_out_as_it_went_in(gradients: bool) -> None:
    found = wire.decode_request(wire.decode(wire.encode_request(IMAGES, PROMPTS, gradients)))
    assert torch.equal(found.images, IMAGES)
    assert (found.prompts, found.gradients) == (PROMPTS, gradients)


def test_images_of_any_layout_and_precision_are_sent_as_float32() -> None:
    images = IMAGES.double().transpose(2, 3)
    found = wire.decode_request(wire.decode(wire.encode_request(images, PROMPTS, False)))
    assert torch.equal(found.images, images.float())


@pytest.mark.parametrize("gradients", [None, IMAGES + 1])
def test_scores_come_out_as_they_went_in(gradients: Tensor | None) -> None:
    scores = torch.tensor([1.5, float("nan")])
    found, gradient = wire.decode_scores(wire.decode(wire.encode_scores(scores, gradients)), IMAGES.shape)
    torch.testing.assert_close(found, scores, equal_nan=True, rtol=0, atol=0)
    assert gradient is None if gradients is None else torch.equal(gradient, gradients)


def test_an_error_is_one_line_of_readable_length() -> None:
    message = wire.decode(wire.encode_error("bad\n\x1b[31m" + "x" * 5000))
    sentence = wire.error_of(message)
    assert sentence is not None and sentence.startswith("bad [31mxxx") and len(sentence) < 2010
    assert wire.error_of(wire.decode(wire.encode_scores(torch.zeros(1), None))) is None


def test_a_reply_of_full_size_is_within_its_bound() -> None:
    assert len(wire.encode_scores(torch.zeros(2), IMAGES)) <= wire.largest_reply(IMAGES.shape, True)


def _message(content: Any, **tensors: Tensor) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return save({"message": torch.frombuffer(bytearray(text), dtype=torch.uint8), **tensors})


GOOD = {"kind": "score", "protocol": 1, "prompts": ["a", "b"], "gradients": False}
BAD_REQUESTS = {
    "empty": (b"", "is not in the safetensors format"),
    "pickle": (b"\x80\x04K\x01.", "is not in the safetensors format"),
    "no message": (save({"images": IMAGES}), "has no tensor 'message'"),
    "message of numbers": (save({"message": torch.zeros(3)}), "has no tensor 'message'"),
    "no json": (_message(b"{"), "is not JSON"),
    "no utf-8": (_message(b"\xff\xfe"), "is not JSON"),
    "deep json": (_message(b"[" * 100_000), "is not JSON"),
    "list": (_message([1]), "is not a JSON object"),
    "no kind": (_message({"a": 1}), "is not a JSON object with a kind"),
    "other kind": (_message({**GOOD, "kind": "exec"}), "is of kind 'exec'"),
    "other version": (_message({**GOOD, "protocol": 99}), "protocol '99'"),
    "no images": (_message(GOOD), "has nothing as images"),
    "double images": (_message(GOOD, images=IMAGES.double()), r"torch.float64 of shape \(2, 3, 5, 4\) as images"),
    "grey images": (_message(GOOD, images=IMAGES[:, :1].contiguous()), r"shape \(2, 1, 5, 4\)"),
    "empty images": (_message(GOOD, images=torch.zeros(2, 3, 0, 4)), r"shape \(2, 3, 0, 4\)"),
    "prompts of numbers": (_message({**GOOD, "prompts": [1, 2]}, images=IMAGES), "not a list of strings"),
    "prompts as one text": (_message({**GOOD, "prompts": "ab"}, images=IMAGES), "not a list of strings"),
    "one prompt": (_message({**GOOD, "prompts": ["a"]}, images=IMAGES), "2 images and 1 prompts"),
    "gradients as a number": (_message({**GOOD, "gradients": 1}, images=IMAGES), "whether it wants gradients"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "sentence"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_gets_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        wire.decode_request(wire.decode(data))


SCORES = {"kind": "scores"}
BAD_REPLIES = {
    "no scores": (_message(SCORES), "has nothing as scores"),
    "three scores": (_message(SCORES, scores=torch.zeros(3)), r"shape \(3,\) as scores; expected float32, \(2,\)"),
    "column": (_message(SCORES, scores=torch.zeros(2, 1)), r"shape \(2, 1\) as scores"),
    "whole numbers": (_message(SCORES, scores=torch.zeros(2, dtype=torch.int32)), "torch.int32 of shape"),
    "small gradients": (_message(SCORES, scores=torch.zeros(2), gradients=torch.zeros(2, 3, 1, 1)), "as gradients"),
    "half gradients": (_message(SCORES, scores=torch.zeros(2), gradients=IMAGES.half()), "torch.float16 of shape"),
    "other kind": (_message({"kind": "hello"}), "is of kind 'hello'"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "sentence"), BAD_REPLIES.values(), ids=BAD_REPLIES)
def test_a_bad_reply_gets_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        wire.decode_scores(wire.decode(data), IMAGES.shape)


def _decode_anything(data: bytes) -> None:
    try:
        message = wire.decode(data)
        wire.error_of(message)
        for read in (wire.decode_request, lambda one: wire.decode_scores(one, IMAGES.shape)):
            with suppress(ProtocolError):
                read(message)
    except ProtocolError as error:
        assert "\n" not in str(error) and len(str(error)) < 600


def test_damaged_messages_never_raise_anything_else() -> None:
    draw = random.Random(0)
    whole = [
        wire.encode_request(IMAGES, PROMPTS, True),
        wire.encode_scores(torch.zeros(2), IMAGES),
        wire.encode_error("no"),
    ]
    for _ in range(1500):
        data = bytearray(draw.choice(whole))
        for _ in range(draw.randint(1, 8)):
            where = draw.randrange(min(len(data), 400))
            kind = draw.randrange(4)
            if kind == 0:
                data[where] ^= 1 << draw.randrange(8)
            elif kind == 1:
                del data[where : where + draw.randint(1, 9)]
            elif kind == 2:
                data[where:where] = draw.randbytes(draw.randint(1, 9))
            else:
                data[where] = draw.choice(b'0123456789{}[]",:-eF')
        _decode_anything(bytes(data[: draw.randint(0, len(data))] if draw.random() < 0.2 else data))


@settings(max_examples=200, deadline=None, database=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes) -> None:
    _decode_anything(data)


HEADERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["F32", "F64", "BF16", "I8"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["message", "images", "scores", "dtype", "shape", "data_offsets"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, database=None)
@given(HEADERS, st.binary(max_size=64))
def test_strange_safetensors_headers_never_raise_anything_else(header: Any, rest: bytes) -> None:
    text = json.dumps(header).encode()
    _decode_anything(len(text).to_bytes(8, "little") + text + rest)


class Here:
    """A scorer that is nowhere else: means of the blue channel, squared."""

    def __init__(self, differentiable: bool | None = True, factor: float = 1.0):
        self.differentiable = differentiable
        self.factor = factor
        self.asked: list[tuple[int, bool]] = []

    def score(self, images: Tensor, prompts: Any, gradients: bool) -> tuple[Tensor, Tensor | None]:
        assert not images.requires_grad and len(prompts) == len(images)
        self.asked.append((len(images), gradients))
        with torch.enable_grad():
            seen = images.requires_grad_(True)
            scores = seen[:, 2].mean((1, 2)) ** 2 * self.factor
        if not gradients or not self.differentiable:
            return scores.detach(), None
        return scores.detach(), torch.autograd.grad(scores.sum(), seen)[0]

    def identity(self) -> str:
        return "here"

    def close(self) -> None: ...


@pytest.mark.parametrize("batch", [0, 1, 2, 5])
def test_gradients_are_those_of_the_graph(batch: int) -> None:
    reward = ProxyReward("r", Here(), batch)
    images = torch.rand(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, -2.0, 0.0, 3.0, 0.5])
    (found,) = torch.autograd.grad((reward(images, list("abcde")) * weights).sum(), images)
    (expected,) = torch.autograd.grad((images[:, 2].mean((1, 2)) ** 2 * weights).sum(), images)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert found.dtype == torch.float64


def test_nobody_is_asked_for_gradients_that_are_not_wanted() -> None:
    scorer = Here()
    reward = ProxyReward("r", scorer)
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    with torch.no_grad():
        assert not reward(images, ["", ""]).requires_grad
    assert not reward(images.detach(), ["", ""]).requires_grad
    assert scorer.asked == [(2, False), (2, False)]


def test_a_black_box_gives_scores_alone() -> None:
    reward = ProxyReward("r", Here(differentiable=False))
    assert reward.differentiable is False
    assert not reward(IMAGES.clone().requires_grad_(True), PROMPTS).requires_grad


def test_the_first_scores_show_what_the_far_side_does_not_know() -> None:
    scorer = Here(differentiable=None)
    reward = ProxyReward("r", scorer)
    assert reward.differentiable is None
    assert not reward(IMAGES.clone().requires_grad_(True), PROMPTS).requires_grad
    assert reward.differentiable is False
    scorer.differentiable = True
    reward = ProxyReward("r", scorer)
    assert reward(IMAGES.clone().requires_grad_(True), PROMPTS).requires_grad
    scorer.differentiable = False
    with pytest.raises(RunError, match="returned no gradient; expected one"):
        reward(IMAGES.clone().requires_grad_(True), PROMPTS)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e38 * 1e5])
def test_numbers_that_are_not_finite_are_those_of_a_reward_that_lives_here(factor: float) -> None:
    elsewhere = ProxyReward("r", Here(factor=factor))

    def here(images: Tensor, prompts: Any) -> Tensor:
        return images[:, 2].mean((1, 2)) ** 2 * factor

    said = []
    for reward in (elsewhere, FunctionReward("r", here)):
        images = IMAGES.clone().requires_grad_(True)
        scores = reward(images, PROMPTS)
        (gradient,) = torch.autograd.grad(scores.sum(), images)
        said.append((scores.detach(), gradient))
        with pytest.raises(RunError, match="not finite"):
            as_scores("r", reward(IMAGES, PROMPTS), len(IMAGES))
    torch.testing.assert_close(said[0], said[1], equal_nan=True)
    assert not bool(torch.isfinite(said[0][0]).all())


def test_what_is_no_batch_is_refused_before_it_is_sent() -> None:
    scorer = Here()
    with pytest.raises(DippError, match="one prompt for each image"):
        ProxyReward("r", scorer)(IMAGES, ["a"])
    assert not scorer.asked


def test_a_report_comes_out_as_it_went_in() -> None:
    report = {"sigma": torch.tensor([0.5, 2.0]), "mu": torch.tensor([1.0, -1.0])}
    message = wire.decode(wire.encode_scores(torch.zeros(2), None, report=report))
    found = wire.decode_report(message, 2)
    assert found.keys() == report.keys()
    assert all(torch.equal(found[name], report[name]) for name in report)
    assert wire.decode_scores(message, IMAGES.shape)[1] is None
    assert wire.decode_report(wire.decode(wire.encode_scores(torch.zeros(2), None)), 2) == {}


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("sigma", torch.zeros(3)),
        ("sigma", torch.zeros(2, dtype=torch.int64)),
        ("a/b", torch.zeros(2)),
        ("", torch.zeros(2)),
    ],
)
def test_a_report_that_is_none_is_a_sentence(name: str, numbers: Tensor) -> None:
    message = wire.decode(wire.encode({"kind": "scores", "protocol": 1}, {f"report/{name}": numbers}))
    with pytest.raises(ProtocolError, match="as report"):
        wire.decode_report(message, 2)


class Sure:
    """Scores by brightness, and says how sure it is."""

    differentiable = True

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        self.sigma = images.detach().std((1, 2, 3))
        return images.mean((1, 2, 3))

    def report(self) -> dict[str, Tensor]:
        return {"sigma": self.sigma}


@pytest.mark.parametrize("batch", [0, 1])
def test_training_logs_the_mean_of_what_a_reward_reports(batch: int) -> None:
    sample = Sample(IMAGES, Condition(tuple(PROMPTS), {}), IMAGES, torch.Generator())
    expected = IMAGES.std((1, 2, 3)).mean().item()
    terms = [
        WeightedTerm(f"reward/{name}", RewardTerm(name, Sure(), lambda latents: latents, batch), mixed=True)
        for name in "ab"
    ]
    result, _ = read_result(evaluate_objective(terms, sample, RewardMix()))
    row = step_metrics(result, 0.0, None)
    assert row["sigma/reward/a"] == pytest.approx(expected) and row["sigma/reward/b"] == pytest.approx(expected)


def test_rewards_that_are_decoded_together_report_too() -> None:
    shared = SharedDecode(RisingClamp.apply, 2)
    terms = [WeightedTerm(f"reward/{name}", RewardTerm(name, Sure(), shared), mixed=True) for name in "ab"]
    sample = Sample(IMAGES, Condition(tuple(PROMPTS), {}), IMAGES, torch.Generator(), step=MEASURED + 1)
    result, _ = read_result(evaluate_objective(terms, sample, RewardMix()))
    assert not result.results["reward/a"].grad.numel()  # of both there is the sum alone
    assert step_metrics(result, 0.0, None)["sigma/reward/a"] == pytest.approx(IMAGES.std((1, 2, 3)).mean().item())
