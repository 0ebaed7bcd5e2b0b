"""`judge:http://host:8000/v1?model=NAME`: a vision-language model's opinion as a reward, without a gradient.

Any server with OpenAI's chat protocol will do (vLLM, SGLang, llama.cpp, a vendor's). Every question goes with
temperature 0, and every answer is kept: asked again, by this run or another one, it is read from the file, so that a
run can be done over without the server and gives the same bits.
"""

from __future__ import annotations

import inspect
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import BadNumbers, RunError
from dipp_toolkit.protocols import Reward
from dipp_toolkit.rewards.remote.address import is_loopback, read_token
from dipp_toolkit.rewards.remote.connection import Connection
from dipp_toolkit.rewards.remote.wire import one_line
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.images import Images, to_uint8
from dipp_toolkit.utils.imports import check_options
from dipp_toolkit.utils.paths import cache_place, user_path

from .address import KEY_VARIABLE, OF_ADDRESS, checked
from .answers import Answers
from .compared import Compared
from .question import Pixels, Question
from .reading import Answer, Unusable, score_of
from .server import Server

Asked = Sequence[tuple[Question, Callable[[Answer], float]]]
"""The questions about an image, each with how a score is read from its answer."""

CHECKED = ("concurrency", "budget", "tolerate", "timeout", "retries", "extra")
"""Options that are checked before the reward is made."""


class Judge:
    """A black-box reward that asks a language model.

    Scores are in the template's range: of a *yes or no* the probability of yes, of a *rating* the number, of a
    *comparison* how far the image is preferred to another one of its prompt, in [0, 1] and asked in both orders,
    because models prefer one place.

    Args:
        address: of the server, up to where `/chat/completions` begins; its query may say `model`, `template` and
            `against`.
        model: what the server calls it.
        template: what is asked: a name (`dipp_judge/templates`) or a `.yaml` file.
        against: for a comparison, a folder with an image of each prompt, as `dipp generate` writes it, and a
            `prompts.json` that says which is whose.
        concurrency: questions at a time.
        budget: calls that may ever be made to this model for the file of answers, repeated ones included; 0 for any.
        tolerate: share of the images of one call whose answers may hold no score; they get the mean of the others. An
            update with more of them is skipped, as for any score that is not finite.
        timeout: seconds an answer.
        retries: attempts after the first at a server that is busy or does not answer, after growing pauses.
        key_env: the environment variable that holds the key; a key is in no settings, no log and no file of answers.
        cache: the file of answers; by default `judges/answers.sqlite` in `$DIPP_CACHE` or `~/.cache/dipp`.
        offline: whether only answers that are kept are used.
        extra: further fields of each request, as a server of your own understands them.

    Raises:
        RequestError: an option cannot be used.
    """

    differentiable = False
    range = "the template's: a probability of yes or a preference in [0, 1], or a rating"
    licence = "that of the model that is asked"
    source = "docs/guide/judges.md; the source of each template is in its file"
    blind_to = "what its question does not ask for; models prefer a place, so a comparison is asked in both orders"
    asks = "the model that is asked"
    client = "judge"
    of_address: tuple[str, ...] = OF_ADDRESS

    def __init__(
        self,
        address: str = "",
        *,
        model: str | None = None,
        template: str | None = None,
        against: str | None = None,
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
        self.name = f"{self.client}:{address}"
        given = {"model": model, "template": template, "against": against}
        asked = {key: given[key] for key in self.of_address}
        base, said, self.template = checked(self.name, address, asked, concurrency, budget, tolerate, timeout, retries,
            extra, self.client)  # fmt: skip
        self.model, self.offline, self.budget, self.tolerate = said["model"], offline, budget, tolerate
        self.timeout, self.concurrency, self.extra = timeout, concurrency, dict(extra or {})
        self.compared = Compared(user_path(said["against"])) if "against" in said else None
        self.answers = Answers(cache_place("judges") / "answers.sqlite" if cache is None else user_path(cache))
        host = urlsplit(base).hostname or ""
        headers = {"content-type": "application/json"}
        connection = Connection(base, is_loopback(host), read_token(key_env), key_env, timeout, headers)
        self.server = Server(connection, retries, self._allow)

    @classmethod
    def at(cls, address: str, options: Mapping[str, Any]) -> Callable[[], Reward]:
        """See `dipp_toolkit.rewards.loading.AsksServer`."""
        name = f"{cls.client}:{address}"
        check_options(cls, options, f"reward '{name}'")
        defaults = {key: one.default for key, one in inspect.signature(cls).parameters.items() if key in CHECKED}
        given = {key: options.get(key, default) for key, default in defaults.items()}
        _, said, _ = checked(
            name, address, {key: options.get(key) for key in cls.of_address}, **given, client=cls.client
        )
        if "against" in said:
            Compared(user_path(said["against"]))
        return partial(cls, address, **options)

    def score_identity(self) -> str:
        """A digest of what decides a score: the model by its name, the question, what is compared with. Not where the
        server is, and not how it is asked."""
        compared = "" if self.compared is None else self.compared.digest
        return digest_of([self.model, self.template.digest, compared, self.extra])

    def close(self) -> None:
        """End the connection and close the file of answers."""
        self.server.connection.close()
        self.answers.close()

    @torch.no_grad()
    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores in float32, `(B,)`, on the images' device.

        Raises:
            RequestError: the images and prompts are not a batch.
            RunError: the judge does not answer, its budget is spent, or too many of its answers hold no score.
        """
        check_inputs(self.name, images, prompts)
        every = self._questions(list(to_uint8(images)), prompts)
        answers = self._answered(
            {one.key: one for asked in every if not isinstance(asked, Unusable) for one, _ in asked}
        )
        scores: list[float] = []
        wrong: list[str] = []
        for asked in every:
            try:
                scores.append(self._score(asked, answers))
            except Unusable as why:
                scores.append(math.nan)
                wrong.append(str(why))
        return torch.tensor(self._filled(scores, wrong), dtype=torch.float32, device=images.device)

    def _questions(self, pictures: Sequence[Pixels], prompts: Sequence[str]) -> list[Asked | Unusable]:
        """What is asked about each image; why nothing can be, where that is so.

        Raises:
            RunError: something that a question needs is not there.
        """
        return [self._about(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]

    def _about(self, picture: Pixels, prompt: str) -> Asked:
        orders = [[picture]]
        if self.compared is not None:
            other = self.compared.of(prompt)
            orders = [[picture, other], [other, picture]]
        readings: tuple[Callable[[Answer], float], ...] = (partial(score_of, self.template), self._turned_score)
        return [
            (Question(self.template, self.model, prompt, images, self.extra), read)
            for images, read in zip(orders, readings, strict=False)
        ]

    def _turned_score(self, answer: Answer) -> float:
        """Of the image that was shown second."""
        return 1 - score_of(self.template, answer)

    def _score(self, asked: Asked | Unusable, answers: Mapping[str, Answer | Unusable]) -> float:
        """An image's score from the answers.

        Raises:
            Unusable: it has none.
        """
        if isinstance(asked, Unusable):
            raise asked
        each = []
        for question, read in asked:
            answer = answers[question.key]
            if isinstance(answer, Unusable):
                raise answer
            each.append(read(answer))
        return self._mean(each)

    def _mean(self, scores: Sequence[float]) -> float:
        """Of an image's questions."""
        return sum(scores) / len(scores)

    def _filled(self, scores: Sequence[float], wrong: Sequence[str]) -> Sequence[float]:
        """Scores with the mean of the others where there is none.

        Raises:
            RunError: no image has one.
            BadNumbers: more have none than is tolerated.
        """
        if not wrong:
            return scores
        said = (
            f"The judge '{self.model}' gave no score for {len(wrong)} of {len(scores)} images. Of the first one: "
            f"{wrong[0].rstrip('.')}."
        )
        if len(wrong) == len(scores):
            raise RunError(f"{said} Its template may not suit the model.")
        if len(wrong) > self.tolerate * len(scores):
            share = math.ceil(100 * len(wrong) / len(scores)) / 100
            raise BadNumbers(f"{said} With its option tolerate={share:g} such images get the mean of the others.")
        mean = sum(score for score in scores if not math.isnan(score)) / (len(scores) - len(wrong))
        return [mean if math.isnan(score) else score for score in scores]

    def _answered(self, questions: Mapping[str, Question]) -> dict[str, Answer | Unusable]:
        """The answers by question, from the file or else from the server.

        Raises:
            RunError: the server does not answer all of them; those that came are kept.
        """
        found: dict[str, Answer | Unusable] = dict(self.answers.find(list(questions)))
        missing = [question for key, question in questions.items() if key not in found]
        if missing and self.offline:
            raise RunError(
                f"The judge '{self.model}' is offline, and {len(missing)} answers are not in {self.answers.path}. "
                "Leave offline out to ask the server."
            )
        made = self.answers.calls(self.model) if missing and self.budget else 0
        if self.budget and made + len(missing) > self.budget:
            raise self._spent(made, len(missing))
        return found | self._asked(missing) if missing else found

    def _asked(self, questions: Sequence[Question]) -> dict[str, Answer | Unusable]:
        """The server's answers; each is kept as it comes."""
        found: dict[str, Answer | Unusable] = {}
        waiting = iter(questions)
        under_way: dict[Future[Answer], Question] = {}
        self.server.stopped.clear()
        pool = ThreadPoolExecutor(min(self.concurrency, len(questions)), thread_name_prefix="judge")
        try:
            while True:
                for question in islice(waiting, self.concurrency - len(under_way)):
                    under_way[pool.submit(self.server.ask, question)] = question
                if not under_way:
                    return found
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    question = under_way.pop(done)
                    try:
                        found[question.key] = self._kept(question, done.result())
                    except Unusable as why:  # not kept: another time the server may do better
                        found[question.key] = why
        except Exception:
            self.server.stopped.set()
            self._keep_what_comes(under_way)
            raise
        finally:  # an interrupt does not wait for a server that says nothing
            self.server.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _kept(self, question: Question, answer: Answer) -> Answer:
        """The answer that is in the file from now on: this one, or that of who asked the same and was faster.

        Raises:
            RunError: another model answered than those before.
        """
        by, kept = self.answers.keep(question.key, self.model, answer)
        if by != answer.model:
            raise RunError(
                f"An answer of the judge '{self.model}' is by '{one_line(answer.model, 80)}', and those in "
                f"{self.answers.path} are by '{one_line(by, 80)}'. Serve that one again, or begin a new run with "
                "another cache."
            )
        return kept

    def _keep_what_comes(self, under_way: Mapping[Future[Answer], Question]) -> None:
        """Keep what was under way when another answer failed: it is paid for."""
        wait([future for future in under_way if not future.cancel()], timeout=self.timeout)
        for future, question in under_way.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self.answers.keep(question.key, self.model, future.result())

    def _allow(self) -> None:
        """Count an attempt.

        Raises:
            RunError: the budget has none left.
        """
        if not self.answers.count_call(self.model, self.budget):
            raise self._spent(self.answers.calls(self.model), 1)

    def _spent(self, made: int, wanted: int) -> RunError:
        more = made + max(wanted, self.budget)
        advised = shlex.quote(f"reward.{self.name}.budget={more}")
        return RunError(
            f"The budget of {self.budget} calls to the judge '{self.model}' is spent: {made} were made, and {wanted} "
            f"more are needed. All answers are kept in {self.answers.path}. Raise its option budget to go on: "
            f"--set {advised}"
        )
