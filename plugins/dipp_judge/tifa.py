r"""`soft-tifa:http://host:8000/v1?model=NAME`: Soft-TIFA, a judge asked about each part of a prompt.

Kamath et al. 2025 (GenEval 2, arXiv 2512.16853): a prompt's parts are questions $q_i$ with the answers $a_i$ of an
image that shows them; the judge is asked each with "Answer in one word.", and with $p_i$ the probability that its
answer begins with $a_i$ the score of an image is

$$\frac1n \sum_i p_i \qquad\text{or}\qquad \Bigl(\prod_i p_i\Bigr)^{1/n},$$

the arithmetic mean for what is true of parts (Soft-TIFA AM), the geometric one of whole prompts (Soft-TIFA GM).

What differs from the published script: that reads the probabilities of all tokens of a model in the same process, and
a server gives those of the 20 likeliest; what is not among them counts as 0. That script takes an answer's first token;
a server does not say how it cuts words, so answers are to be *yes*, *no*, a number up to nine or its word, or another
word, where that is one token. Larger numbers in digits, which tokenizers may write one by one, are refused in a file
and passed over in a judge's list, and so are several words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from dipp_toolkit.errors import RequestError
from dipp_toolkit.protocols import Reward
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.paths import user_path

from .address import KEY_VARIABLE
from .atoms import Atom, AtomFile, atoms_in
from .question import Pixels, Question
from .reading import Answer, Unusable, probability_of
from .reward import Asked, Judge
from .template import Template, Words, load_template

MEANS = ("arithmetic", "geometric")
QUESTIONS = "questions"
OF_ATOM = Template.model_validate(
    {
        "ask": "yes-no",
        "text": "{prompt} Answer in one word.",
        "source": "the question of Soft-TIFA (Kamath et al. 2025, arXiv 2512.16853)",
    }
)
"""What is asked about a part: its question stands where a prompt would."""


class SoftTifa(Judge):
    """A black-box reward: the mean probability of the right answers about a prompt's parts, in [0, 1].

    An image is asked about once for each part, five to ten times as a rule; where the judge makes the questions, one
    more for each prompt. All answers are kept, and so are the questions.

    Args:
        address: as for `Judge`; its query says `model` alone.
        model: what the server calls it.
        atoms: a file of questions in the format of GenEval 2's; the judge makes them of each prompt otherwise.
        mean: `arithmetic` or `geometric`.
        questions: the template by which the judge makes questions: a name, or a `.yaml` file with `ask: questions`.
        concurrency: as for `Judge`.
        budget: as for `Judge`.
        tolerate: as for `Judge`; an image has no score where one of its answers has no probabilities.
        timeout: as for `Judge`.
        retries: as for `Judge`.
        key_env: as for `Judge`.
        cache: as for `Judge`.
        offline: as for `Judge`.
        extra: as for `Judge`.

    Raises:
        RequestError: an option cannot be used.
    """

    range = "a mean of probabilities, in [0, 1]"
    source = "Kamath et al. 2025 (GenEval 2), arXiv 2512.16853"
    blind_to = "beauty and style; what no question asks about; whatever the model that is asked does not see or count"
    client = "soft-tifa"
    of_address = ("model",)

    def __init__(
        self,
        address: str = "",
        *,
        model: str | None = None,
        atoms: str | None = None,
        mean: str = "arithmetic",
        questions: str = QUESTIONS,
        concurrency: int = 8,
        budget: int = 0,
        tolerate: float = 0.0,
        timeout: float = 120.0,
        retries: int = 4,
        key_env: str = KEY_VARIABLE,
        cache: str | None = None,
        offline: bool = False,
        extra: Mapping[str, Any] | None = None,
    ):
        self.atoms, self.questions = _checked(atoms, mean, questions)
        self.mean = mean
        super().__init__(
            address,
            model=model,
            concurrency=concurrency,
            budget=budget,
            tolerate=tolerate,
            timeout=timeout,
            retries=retries,
            key_env=key_env,
            cache=cache,
            offline=offline,
            extra=extra,
        )
        self.template = OF_ATOM

    @classmethod
    def at(cls, address: str, options: Mapping[str, Any]) -> Callable[[], Reward]:
        """See `dipp_toolkit.rewards.loading.AsksServer`."""
        make = super().at(address, options)
        _checked(options.get("atoms"), options.get("mean", MEANS[0]), options.get("questions", QUESTIONS))
        return make

    def score_identity(self) -> str:
        """A digest of what decides a score: the model by its name, the questions, the mean."""
        questions = self.questions.digest if self.atoms is None else self.atoms.digest
        return digest_of([self.model, self.template.digest, questions, self.mean, self.extra])

    def _questions(self, pictures: Sequence[Pixels], prompts: Sequence[str]) -> list[Asked | Unusable]:
        by_prompt = self._atoms_of(dict.fromkeys(prompts))
        return [
            self._about_atoms(picture, by_prompt[prompt]) for picture, prompt in zip(pictures, prompts, strict=True)
        ]

    def _about_atoms(self, picture: Pixels, atoms: Sequence[Atom] | Unusable) -> Asked | Unusable:
        if isinstance(atoms, Unusable):
            return atoms
        return [
            (Question(OF_ATOM, self.model, atom.asked, [picture], self.extra), partial(_probability, words=atom.words))
            for atom in atoms
        ]

    def _atoms_of(self, prompts: Iterable[str]) -> dict[str, Sequence[Atom] | Unusable]:
        """The parts of each prompt, or why there are none.

        Raises:
            RunError: the file has none of a prompt, or the judge does not answer.
        """
        if self.atoms is not None:
            return {prompt: self.atoms.of(prompt) for prompt in prompts}
        asked = {prompt: Question(self.questions, self.model, prompt, [], self.extra) for prompt in prompts}
        answers = self._answered({question.key: question for question in asked.values()})
        return {prompt: self._listed(answers[question.key]) for prompt, question in asked.items()}

    def _listed(self, answer: Answer | Unusable) -> Sequence[Atom] | Unusable:
        if isinstance(answer, Unusable):
            return answer
        try:
            return atoms_in(answer, self.questions.max_tokens)
        except Unusable as why:
            return why

    def _mean(self, scores: Sequence[float]) -> float:
        if self.mean == "arithmetic":
            return sum(scores) / len(scores)
        if min(scores) <= 0:
            return 0.0
        return math.exp(sum(map(math.log, scores)) / len(scores))


def _probability(answer: Answer, words: Words) -> float:
    return min(probability_of(answer, words), 1.0)  # rounding of the server's


def _checked(atoms: Any, mean: Any, questions: Any) -> tuple[AtomFile | None, Template]:
    """The file of questions and the template of those that the judge makes.

    Raises:
        RequestError: an option cannot be used.
    """
    if mean not in MEANS:
        raise RequestError(f"The option mean of the reward 'soft-tifa' is '{mean}'; expected {' or '.join(MEANS)}.")
    template = load_template(cast(str, questions))
    if template.ask != "questions":
        raise RequestError(
            f"The option questions of the reward 'soft-tifa' names a template that asks for a {template.ask}; expected "
            "one with 'ask: questions'."
        )
    return None if atoms is None else AtomFile(user_path(atoms)), template
