"""From a judge's words to a number. Words are read by patterns and never run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dipp_toolkit.rewards.remote.wire import one_line

from .template import Template, Words

NUMBER = r"[+-]?(?:\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})"
SCALE = r"\s{0,8}(?:\(\s?\d{1,3}\s?(?:-|\u2013|to)\s?\d{1,3}\s?\))?"
"""A scale that some models repeat between label and number: `Alignment Score (1-5): 3.6`."""
BETWEEN = r"[\s*_`~:=(\[{]{0,16}"
"""What may stand between a label and its number: white space, Markdown, a colon, an opening bracket."""
MOST_SHOWN = 120


class Unusable(Exception):  # noqa: N818 -- of one answer; the reward decides what it means
    """An answer that holds no score; its text says why."""


@dataclass(frozen=True)
class Answer:
    """What a server answered to one question, without what does not matter for the score.

    Attributes:
        text: what the model wrote.
        model: what the server calls itself.
        finish: why it ended, `"stop"` or `"length"`.
        first: log-probabilities of what the first word might have been, by token; empty where none were given.
    """

    text: str
    model: str = ""
    finish: str = ""
    first: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """To be kept."""
        return {"text": self.text, "model": self.model, "finish": self.finish, "first": dict(self.first)}


def answer_of(content: Any) -> Answer:
    """From the JSON of a chat completion.

    Raises:
        Unusable: it is none, or the model refused.
    """
    choices = content.get("choices") if isinstance(content, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Unusable("the response is no chat completion: it has no choices with a message")
    assert isinstance(choice, dict)
    text = message.get("content")
    if isinstance(text, list):  # in parts, as the protocol allows
        text = "".join(part["text"] for part in text if isinstance(part, dict) and isinstance(part.get("text"), str))
    refusal = message.get("refusal")
    if not isinstance(text, str) or not text.strip():
        why = f"it refused: {quote(refusal)}" if isinstance(refusal, str) and refusal else "it wrote nothing"
        raise Unusable(why)
    model, finish = content.get("model"), choice.get("finish_reason")
    return Answer(
        text=text,
        model=model if isinstance(model, str) else "",
        finish=finish if isinstance(finish, str) else "",
        first=_first_word(choice.get("logprobs")),
    )


def _first_word(logprobs: Any) -> dict[str, float]:
    """Log-probabilities at the first place where a token is more than white space."""
    places = logprobs.get("content") if isinstance(logprobs, dict) else None
    for place in places if isinstance(places, list) else ():
        if not isinstance(place, dict) or not isinstance(place.get("token"), str) or not place["token"].strip():
            continue
        told = [place, *(place["top_logprobs"] if isinstance(place.get("top_logprobs"), list) else ())]
        return {
            one["token"]: float(one["logprob"])
            for one in told
            if isinstance(one, dict) and isinstance(one.get("token"), str) and _is_log_probability(one.get("logprob"))
        }
    return {}


def _is_log_probability(value: Any) -> bool:
    # A whole number may be too large for a float, and infinity is what some servers send for a token that cannot be.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and (value == -math.inf or -1e9 <= value <= 1e-6)


def score_of(template: Template, answer: Answer) -> float:
    """The score that an answer gives an image; of a comparison, that of the first one shown.

    Raises:
        Unusable: it gives none.
    """
    if template.ask == "yes-no":
        return yes_probability(answer, template.yes, template.no)
    if answer.finish == "length":
        raise Unusable(f"it was cut off after {template.max_tokens} tokens, max_tokens of its template")
    if template.ask == "rating":
        return rating(answer.text, template)
    return preference(answer.text, template)


def yes_probability(answer: Answer, yes: Words, no: Words) -> float:
    r"""$p(\mathrm{yes}) / (p(\mathrm{yes}) + p(\mathrm{no}))$ of the answer's first word, in [0, 1].

    Tokens that differ in case and white space alone count together.

    Raises:
        Unusable: neither word is among those that the server gives probabilities of, or it gives none.
    """
    sums = [probability_of(answer, words) for words in (yes, no)]
    total = sum(sums)
    if total <= 0:
        raise Unusable(f"neither {' nor '.join((yes[0], no[0]))} is likely as its first word: {quote(answer.text)}")
    return sums[0] / total


def probability_of(answer: Answer, words: Words) -> float:
    """The probability that the answer begins with one of these words, of those that the server gives; case and white
    space do not count.

    Raises:
        Unusable: the server gives none.
    """
    if not answer.first:
        raise Unusable("it has no log-probabilities; start the server so that it gives top_logprobs")
    plain = {_plain(word) for word in words}
    return sum((math.exp(min(value, 0.0)) for token, value in answer.first.items() if _plain(token) in plain), 0.0)


def _plain(token: str) -> str:
    return token.strip(" \t\r\n.,:;!*\"'_▁Ġ").casefold()


def rating(text: str, template: Template) -> float:
    """The mean of the numbers after the template's labels.

    Raises:
        Unusable: one is missing or out of range.
    """
    return _mean(text, template, template.labels, template.labels)


def _mean(text: str, template: Template, labels: Sequence[str], named: Sequence[str]) -> float:
    """Of the numbers after labels; `named` are the template's own names of these.

    Of several numbers after one label the last counts, as models that think first repeat the task before they answer
    it; where the template says `every`, all of them.
    """
    numbers: list[float] = []
    for label, name in zip(labels, named, strict=True):
        found = numbers_after(text, label)
        if not found and name not in template.optional:
            raise Unusable(f"it has no number after '{label}': {quote(text)}")
        numbers += found if template.every else found[-1:]
    if not numbers:
        raise Unusable(f"it rates nothing: {quote(text)}")
    wrong = next((number for number in numbers if not template.lowest <= number <= template.highest), None)
    if wrong is not None:
        raise Unusable(f"it has the number {wrong:g}; expected {template.lowest:g} to {template.highest:g}")
    return sum(numbers) / len(numbers)


def numbers_after(text: str, label: str) -> list[float]:
    """The numbers that stand after a label, whatever its case, in order; what is marked `N/A` has none."""
    pattern = rf"(?<!\w){re.escape(label)}{SCALE}{BETWEEN}(?P<number>{NUMBER})"
    return [float(place["number"]) for place in re.finditer(pattern, text, re.IGNORECASE)]


def preference(text: str, template: Template) -> float:
    """1 where the first image is better, 0 where the second is, 1/2 for a tie; where both are rated, half the
    difference of the means over the range, from 1/2.

    Raises:
        Unusable: it says neither.
    """
    if template.labels:
        means = []
        for side in template.sides:
            means.append(_mean(text, template, [f"{label} {side}" for label in template.labels], template.labels))
        return 0.5 + (means[0] - means[1]) / (2 * (template.highest - template.lowest))
    places = {
        value: max((_last(text, sentence) for sentence in sentences), default=-1)
        for value, sentences in ((1.0, template.first), (0.0, template.second), (0.5, template.tie))
    }
    value, place = max(places.items(), key=lambda item: item[1])
    if place < 0:
        raise Unusable(f"it says of neither image that it is better: {quote(text)}")
    return value


def _last(text: str, sentence: str) -> int:
    return text.casefold().rfind(sentence.casefold())


def quote(text: str) -> str:
    """The beginning of an answer, for a message."""
    return f"'{one_line(text, MOST_SHOWN)}'"
