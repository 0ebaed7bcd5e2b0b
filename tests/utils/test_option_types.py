"""Values of options against annotations: a sentence for a wrong type, and nothing refused that may be right."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pytest
import torch

from dipp_toolkit.errors import RequestError
from dipp_toolkit.registry import get_registry
from dipp_toolkit.rewards.loading import find_reward
from dipp_toolkit.utils.imports import check_options
from dipp_toolkit.utils.option_types import annotations_of, expected_instead


@runtime_checkable
class Finder(Protocol):
    names: Sequence[str]


class Sizes:
    pass


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (5, str, "a text; in quotes it would be one"),
        (5, str | Path | None, "a path or a name; in quotes it would be one"),
        (True, str | Finder, "a text; in quotes it would be one"),
        ([], str, "a text"),
        (None, str, "a text"),
        ("abc", float, "a number"),
        (True, float, "a number"),
        (None, int | None, ""),
        ("3", int | None, "a whole number"),
        (0.5, int, "a whole number"),
        (float("inf"), int, "a whole number"),
        (True, int, "a whole number"),
        ("no", bool, "true or false"),
        (2, bool, "true or false"),
        ([1], Mapping[str, Any] | None, "a mapping"),
        (5, Sequence[str], "a list"),
        ({}, list[int], "a list"),
        ("x", tuple[int, int], "a list"),
        ("c", Literal["a", "b"], "'a' or 'b'"),
        (True, Literal[1, 2], "1 or 2"),
    ],
)
def test_a_wrong_type_is_told_what_is_expected(value: Any, annotation: Any, expected: str) -> None:
    assert expected_instead(value, annotation) == expected


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("x", str), ("x", Path), (Path("x"), str), (3, float), (3.0, int), (1, bool), (False, bool), (None, str | None),
        ([1, 2], tuple[int, int]), ((1, 2), list[int]), ([1], set[int]), ("ab", Sequence[str]), ({}, Collection[str]),
        ({"a": 1}, Mapping[str, float]), ("a", Literal["a", "b"]), (5, Any), (5, Sizes), ({}, Sizes | None),
        (0, str | torch.device), (torch.float32, str), (torch.tensor(1.0), float), ("x", Finder | str),
        (5, "Unknown"), (5, [str]),
    ],
)  # fmt: skip
def test_what_may_be_right_is_not_refused(value: Any, annotation: Any) -> None:
    assert expected_instead(value, annotation) == ""


def test_a_default_fits_whatever_the_annotation_says_and_unknown_names_check_nothing() -> None:
    def lax(size: int = None, rest: float = 1.0) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    def unknown(size: NowhereToBeFound = 1, rest: float = 1.0) -> None: ...  # type: ignore[name-defined]

    check_options(lax, {"size": None, "rest": 2}, "thing")
    assert annotations_of(unknown) == {}
    check_options(unknown, {"rest": "x"}, "thing")
    with pytest.raises(RequestError, match=r"^The option rest of the thing is 'x'; expected a number\.$"):
        check_options(lax, {"rest": "x"}, "thing")


def test_every_registered_default_is_of_its_type() -> None:
    checked = 0
    for entry in get_registry():
        if entry.missing:
            continue
        annotations = annotations_of(entry.attribute)
        for name, parameter in inspect.signature(entry.attribute).parameters.items():
            if parameter.default is not parameter.empty and name in annotations:
                assert expected_instead(parameter.default, annotations[name]) == "", (entry.name, name)
                checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("mps", {"threshold": "abc"}, "The option threshold of the reward 'mps' is 'abc'; expected a number."),
        ("vqascore", {"question": 5}, "option question of the reward 'vqascore' is 5; expected a text; in quotes"),
        ("geneval", {"metadata": 5}, "option metadata of the reward 'geneval' is 5; expected a path or a name; in"),
        ("geneval", {"detector": 5}, "option detector of the reward 'geneval' is 5; expected a path or a name; in"),
        ("hps", {"batch": True}, "option batch of the reward 'hps' is True; expected a whole number."),
        *[
            (
                "soft-tifa:http://127.0.0.1:9/v1?model=m",
                {option: 5},
                "is 5; expected a text; in quotes it would be one.",
            )
            for option in ("questions", "atoms", "key_env", "cache")
        ],
        ("judge:http://127.0.0.1:9/v1?model=m", {"offline": "no"}, "is 'no'; expected true or false."),
        ("judge:http://127.0.0.1:9/v1?model=m", {"extra": [1]}, "is [1]; expected a mapping."),
    ],
)
def test_options_of_rewards_of_a_wrong_type_are_a_sentence(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError) as told:
        find_reward(name, **options)
    assert sentence in str(told.value) and "\n" not in str(told.value)


def test_a_version_that_yaml_takes_for_a_number_is_one() -> None:
    find_reward("hps", version=2.1)
