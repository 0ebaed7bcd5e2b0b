"""Mistakes that are easy to make in the divergence's gradient, made on purpose; whatever checks it must notice each."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dipp_toolkit.diffusion import times
from dipp_toolkit.objective.base import Sample, TermResult
from dipp_toolkit.objective.terms import divergence, integral_kl

KL = integral_kl.IntegralKL


def flip_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference the wrong way round."""
    original = KL.__call__

    def flipped(self: KL, sample: Sample) -> TermResult:
        result = original(self, sample)
        return replace(result, grad=-result.grad)

    monkeypatch.setattr(KL, "__call__", flipped)


def drop_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 / sigma^2 where (alpha / sigma)^2 belongs."""
    monkeypatch.setitem(times.WEIGHTINGS, "uniform", lambda inputs: 1 / inputs.sigma.square())


def swap_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The assistant in the reference's place, and the guided reference in the assistant's."""
    original, guided = KL.__call__, divergence.guided_x0

    def swapped(self: KL, sample: Sample) -> TermResult:
        reference, assistant, guidance = self.reference, self.assistant, self.guidance
        term = copy.copy(self)
        term.assistant = SimpleNamespace(
            predict_x0=lambda x_t, t, condition: guided(reference, x_t, t, condition, guidance)
        )
        with monkeypatch.context() as inside:
            inside.setattr(
                divergence,
                "guided_x0",
                lambda _reference, x_t, t, condition, _guidance: assistant.predict_x0(x_t, t, condition),
            )
            return original(term, sample)

    monkeypatch.setattr(KL, "__call__", swapped)


MUTATIONS = [flip_sign, drop_alpha, swap_networks]
