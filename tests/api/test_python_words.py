"""Sentences for those who call the toolkit from Python: keywords in the place of flags."""

from __future__ import annotations

import pytest

from dipp_toolkit import DippError, Interrupted, RequestError, TrainConfig
from dipp_toolkit.utils.python_words import in_python_words, python_words


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        (
            "Name a generator to train with --generator, or a reference to distil with --reference.",
            "Name a generator to train with generator=, or a reference to distil with reference=.",
        ),
        ("Go on with: dipp train --resume --out runs/x", "Go on with: train(resume=True, out='runs/x')"),
        ("Go on with --resume, or choose --out.", "Go on with resume=True, or choose out=."),
        ("with --set assistant_warmup=500, for example", "with assistant_warmup=500, for example"),
        ("--pull 0.7 or --reward-scale 5 would do.", "pull=0.7 or reward_scale=5 would do."),
        ("name it with --reference emoji-reference and", "name it with reference='emoji-reference' and"),
        ("train with rewards, as in dipp train --reward hps.", "train with rewards, as in train(rewards='hps')."),
        (
            "dipp train --config runs/a/config.yaml --steps 3 --set 'seed=1'",
            "train(config='runs/a/config.yaml', steps=3, seed=1)",
        ),
        ("--set reward.hps.path=/x", "reward_options={'hps': {'path': '/x'}}"),
        ("It is 3 -- no more.", "It is 3 -- no more."),
        ("Run: pip install 'dipp-toolkit[rewards]'.", "Run: pip install 'dipp-toolkit[rewards]'."),
    ],
)
def test_flags_become_keywords(sentence: str, words: str) -> None:
    assert in_python_words(sentence) == words


@pytest.mark.parametrize("kind", [RequestError, Interrupted])
def test_errors_keep_their_kind(kind: type[BaseException]) -> None:
    with pytest.raises(kind, match=r"^Name it with out=\.$"), python_words():
        raise kind("Name it with --out.")


def test_an_interruption_is_a_keyboard_interrupt_and_no_error() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert not issubclass(Interrupted, (Exception, DippError))
    assert str(Interrupted("at https://me:secret@host/x?token=1")) == "at https://...@host/x?..."


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TrainConfig(stepz=3), "There is no setting 'stepz'. Did you mean 'steps'?"),
        (lambda: TrainConfig(steps=-1), "The setting steps cannot be -1: input should be greater than 0."),
        (lambda: TrainConfig(monitor={"evry": 3}), "There is no setting 'monitor.evry'. Did you mean 'monitor.every'?"),
        (lambda: TrainConfig().replace(sed=1), "There is no setting 'sed'. Did you mean 'seed'?"),
        (
            lambda: setattr(TrainConfig(), "steps", 4),
            "Settings do not change; make others of them: config.replace(steps=4).",
        ),
    ],
)
def test_settings_are_refused_in_a_sentence(make: object, sentence: str) -> None:
    with pytest.raises(RequestError) as refusal:
        make()  # type: ignore[operator]
    assert str(refusal.value) == sentence
    assert "pydantic" not in str(refusal.value)
