"""Fuzzing: what there is to type and to write, and properties that are tried on it and counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import DippError
from dipp_toolkit.rewards.remote import connection

COUNTS: Counter[str] = Counter()
LEAST = 10_000


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """An empty working folder, and nobody at the other end of any line."""

    def nobody(*words: Any, **options: Any) -> Any:
        raise httpx.ConnectError("nobody is there")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("diffusers.configuration_utils"), "disabled", True)
        patch.chdir(folder)
        patch.setattr(httpx.Client, "stream", nobody)
        patch.setattr(connection, "FIRST_PAUSE", 0.0)
        patch.setattr(connection, "LONGEST_PAUSE", 0.0)
        patch.delenv("DIPP_REWARD_TOKEN", raising=False)
        yield


def fuzz(short: int, whole: int, **values: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A property that is tried `short` times in every run, and `whole` times in an exhaustive one."""

    def decorate(check: Callable[..., None]) -> Any:
        def one(**found: Any) -> None:
            COUNTS[check.__name__] += 1
            check(**found)

        lengths = [pytest.param(short, id="short"), pytest.param(whole, id="whole", marks=pytest.mark.exhaustive)]

        @pytest.mark.parametrize("examples", lengths)
        def test(examples: int) -> None:
            options = {"deadline": None, "derandomize": True, "database": None}
            run = settings(max_examples=examples, suppress_health_check=list(HealthCheck), **options)
            run(given(**values)(one))()

        return test

    return decorate


def answered(call: Callable[[], Any]) -> Any:
    """What a call returns; None where it ends in a sentence. Nothing else may be raised."""
    try:
        return call()
    except DippError as error:
        sentence = str(error)
        assert sentence and len(sentence) < 8000 and "Traceback" not in sentence
        return None
    except TypeCheckError as error:  # the tests' own look at a generator, whose network is loaded when it is asked for
        if not isinstance(error.__cause__, DippError):
            raise
        return None


# What there is to type and to write.

LETTERS = st.characters(exclude_categories=())  # halves of characters as well: names of files may hold them
PIECES = (
    ".", "..", "/", "~", "~nobody", "\0", ":", ".py", ".py:f", "@", "@isolated", "diffusers:", "http://", "https://[",
    "http://a:99999/b", "+http://", "?", "?count=", "?category=", "&", "=", ",", "|", "nan", "inf", "1e999", "-1", "0x",
    "=1", " ", "\n", "%", "{}", "[]", "null", "hps", "emoji", "steps", "reward.", "term.", ".x", "a" * 300, "é",
    "\x1b[2J",
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=5).map("".join),
    st.text(LETTERS, max_size=20),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(LETTERS, max_size=4)), max_size=6).map("".join),
)
NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**64, 10**400]),
    st.integers(-6000, 6000).map(lambda digits: 10**digits if digits >= 0 else -(10**-digits)),
    st.floats(),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)), max_leaves=8
)
ANYTHING = st.one_of(VALUES, st.binary(max_size=5), st.just(object()), st.tuples(PLAIN, PLAIN), st.sets(st.integers()))
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**4), 10**4), st.floats(-1e4, 1e4), st.text(LETTERS, max_size=8)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
FIELDS = tuple(TrainConfig.model_fields)


def settings_of(names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[Any, Any]]:
    return st.dictionaries(names, ANYTHING, max_size=5)


MARKS = tuple(
    item.encode() for item in ("", "", *"{}[]\",:'\\\n\t-9.e&*#|%", "null", "true", "1e999", "\\ud800", "\0", "é")
)
"""What means something to some reader or other."""


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes with a few of them changed, left out or put in, or cut off."""

    def damage(changes: list[tuple[int, int, bytes]], end: int) -> bytes:
        found = bytearray(data)
        for place, count, new in changes:
            where = place % (len(found) + 1)
            found[where : where + count] = new
        return bytes(found[: end or None])

    new = st.one_of(st.sampled_from(MARKS), st.sampled_from(MARKS), st.sampled_from(MARKS), st.binary(max_size=4))
    change = st.tuples(st.integers(0, max(len(data), 1)), st.integers(0, 4), new)
    return st.builds(damage, st.lists(change, max_size=5), st.one_of(st.just(0), st.integers(0, len(data))))
