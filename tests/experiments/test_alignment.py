"""Rounds of votes: what is asked in which order, when they end, and that a stop anywhere loses nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.errors import Interrupted, RequestError
from dipp_toolkit.experiments.alignment import rounds
from dipp_toolkit.experiments.alignment.duels import Duels
from dipp_toolkit.experiments.alignment.rounds import align
from dipp_toolkit.experiments.alignment.settings import AlignSettings, prompts_of
from dipp_toolkit.experiments.bench.entries import BenchEntry
from dipp_toolkit.experiments.bench.run import Silent
from dipp_toolkit.experiments.voting.session import Session
from dipp_toolkit.experiments.voting.simulation import answer_all
from dipp_toolkit.preferences.pair import Candidate, Comparison, PictureFile, joined
from dipp_toolkit.preferences.simulated import SimulatedVoter
from dipp_toolkit.preferences.vote_file import NewCandidate, VoteFile
from dipp_toolkit.prompts.loading import load_prompts
from dipp_toolkit.protocols import Prompt
from dipp_toolkit.utils.folder_lock import locked


class Brightness:
    differentiable = True

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.mean((1, 2, 3))


class Voter:
    """A simulated voter who may leave the room."""

    def __init__(self, leaves_at: int = 99) -> None:
        self.voter, self.asked, self.leaves_at = SimulatedVoter(Brightness(), 0.0), [], leaves_at

    def ask(self, session: Session, what: str) -> None:
        self.asked.append(what)
        if len(self.asked) == self.leaves_at:
            showing = session.question(self.voter.name)
            assert showing is not None
            session.answer(self.voter.name, showing.id, "first")
            raise Interrupted("Stopped.")
        answer_all(session, self.voter)


class Stages(Silent):
    def stage(self, number: int, what: str) -> None:
        pass


class House:
    """Generators are greys, and a training makes them brighter by what `gains` says of its round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gains: Sequence[float]) -> None:
        self.level, self.gains, self.fitted, self.trained = {"emoji-onestep": 0.3}, list(gains), [], []
        monkeypatch.setattr(rounds, "fit_reward", self.fit)
        monkeypatch.setattr(rounds, "train", self.train)
        monkeypatch.setattr(rounds, "from_generators", self.draw)

    def draw(
        self, entries: Sequence[BenchEntry], prompts: Sequence[Prompt], seeds: Sequence[int], **_: Any
    ) -> Iterator[NewCandidate]:
        for entry in entries:
            for prompt in prompts:
                for seed in seeds:
                    spread = seed % 10 / 100
                    grey = torch.full((3, 4, 4), self.level[entry.name] + spread)
                    yield NewCandidate(prompt.text, entry.label, grey, prompt.category)

    def fit(self, comparisons: list[Comparison], out: Path, **_: Any) -> None:
        self.fitted.append(comparisons)
        out.mkdir(parents=True)
        facts = {"votes": {"fitted": len(comparisons), "held_out": 0}, "held_out": None, "voters_agreement": None}
        (out / "fit.json").write_text(json.dumps(facts), encoding="utf-8")

    def train(self, config: TrainConfig) -> None:
        self.trained.append(config)
        assert config.out is not None
        self.level[str(config.out)] = self.level[str(config.generator)] + self.gains[len(self.trained) - 1]
        config.out.mkdir(parents=True)
        for name in ("summary.json", "report.html"):
            (config.out / name).write_text("{}", encoding="utf-8")


def settings(out: Path, **changes: Any) -> AlignSettings:
    base = make_config({"generator": "emoji-onestep", "seed": 3})
    own: dict[str, Any] = {
        "votes": 30, "compared": 20, "prompts": 6, "per_prompt": 4, "repeats": 0.1, "fit": {"backbone": "emoji-clip"},
    }  # fmt: skip
    return AlignSettings(base=base, out=out, **(own | changes))


def test_rounds_go_on_while_voters_prefer_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house, voter = House(monkeypatch, [0.1, 0.1, 0.0]), Voter()
    result = align(settings(tmp_path / "align"), voter, Stages())
    assert [one.verdict for one in result.rounds] == ["better", "better", "level"]
    assert result.rounds[0].win_rate.mean == 1.0
    assert result.rounds[2].win_rate.mean == 0.5  # the very same images: a tie each
    assert result.generator == str(tmp_path / "align" / "round-2" / "run")
    assert [config.generator for config in house.trained] == [
        "emoji-onestep", str(tmp_path / "align" / "round-1" / "run"), str(tmp_path / "align" / "round-2" / "run"),
    ]  # fmt: skip
    assert [list(config.rewards) for config in house.trained] == [
        [str(tmp_path / "align" / f"round-{number}" / "reward")] for number in (1, 2, 3)
    ]
    page = result.page.read_text(encoding="utf-8")
    assert "cannot tell new from old" in page
    assert page.count('alt="before: ') == page.count('alt="after: ') == 3 * 8


def test_a_training_that_made_it_worse_ends_the_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    House(monkeypatch, [-0.1])
    result = align(settings(tmp_path / "align"), Voter(), Stages())
    assert [one.verdict for one in result.rounds] == ["worse"]
    assert result.generator == "emoji-onestep"


def test_votes_of_all_rounds_are_fitted_and_those_on_new_against_old_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(monkeypatch, [0.1, 0.1])
    chosen = settings(tmp_path / "align", rounds=2)
    align(chosen, Voter(), Stages())
    assert [len(comparisons) for comparisons in house.fitted] == [30, 60]
    _, held_out = prompts_of(chosen, 1)
    compared = {prompt.text for prompt in held_out}
    assert len(compared) == 20
    assert not compared & {one.first.prompt for comparisons in house.fitted for one in comparisons}
    ids = [image.id for one in house.fitted[1] for image in (one.first, one.second)]
    assert len(set(ids)) == len({(one.picture, one.prompt) for c in house.fitted[1] for one in (c.first, c.second)})


def asked_about(house: House) -> list[list[tuple[int, int, bool]]]:
    return [[(one.first.id, one.second.id, one.repeat) for one in part] for part in house.fitted]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[int, int, bool]]]:
    with pytest.MonkeyPatch.context() as patch:
        house = House(patch, [0.1, 0.1])
        align(settings(tmp_path_factory.mktemp("whole") / "align", rounds=2, votes=10), Voter(), Stages())
        return asked_about(house)


@pytest.mark.first_case
@pytest.mark.parametrize("leaves_at", [1, 2, 3, 4])
def test_a_stop_anywhere_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: list[list[tuple[int, int, bool]]], leaves_at: int
) -> None:
    house, chosen = House(monkeypatch, [0.1, 0.1]), settings(tmp_path / "cut", rounds=2, votes=10)
    with pytest.raises(Interrupted):
        align(chosen, Voter(leaves_at), Stages())
    result = align(chosen, Voter(), Stages())
    assert [one.verdict for one in result.rounds] == ["better", "better"]
    assert len(house.trained) == 2
    if leaves_at in (2, 4):  # no vote of the fits was given by hand
        assert asked_about(house) == uninterrupted


def test_images_that_were_made_before_a_stop_on_another_device_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, chosen = House(monkeypatch, [0.1]), settings(tmp_path / "cut", rounds=1, prompts=12)

    def stopped(*given: Any, **named: Any) -> Iterator[NewCandidate]:
        yield from islice(house.draw(*given, **named), 40)  # of 48, of which 32 were written
        raise Interrupted("Stopped.")

    monkeypatch.setattr(rounds, "from_generators", stopped)
    with pytest.raises(Interrupted):
        align(chosen, Voter(), Stages())
    monkeypatch.setattr(rounds, "from_generators", house.draw)
    house.level["emoji-onestep"] += 1 / 255
    align(chosen, Voter(), Stages())
    with VoteFile.open(chosen.out / "round-1" / "votes") as votes:
        assert len(votes.candidates()) == 48


def test_finished_rounds_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, [0.1, 0.1])
    align(settings(tmp_path / "align", rounds=1), Voter(), Stages())
    voter = Voter()
    result = align(settings(tmp_path / "align", rounds=2), voter, Stages())  # more rounds may be asked for later
    assert len(voter.asked) == 2
    assert len(house.trained) == len(result.rounds) == 2


def test_other_settings_are_refused_in_a_folder_that_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    House(monkeypatch, [0.1])
    align(settings(tmp_path / "align", rounds=1), Voter(), Stages())
    with pytest.raises(RequestError, match="begun with other settings"):
        align(settings(tmp_path / "align", votes=31), Voter(), Stages())


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[AlignSettings, dict[str, Any]]:
    House(monkeypatch, [0.1])
    chosen = settings(tmp_path / "align", rounds=1)
    align(chosen, Voter(), Stages())
    return chosen, json.loads((chosen.out / "align.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: {}, "key: field required"),
        (lambda state: [], "holds a list; expected a JSON object"),
        (lambda state: state | {"key": 3}, "key: input should be a valid string"),
        (lambda state: state | {"rounds": {}}, "rounds: input should be a valid array"),
        (lambda state: state | {"rounds": [7]}, r"rounds\.0: input should be an object"),
        (lambda state: state | {"rounds": [state["rounds"][0] | {"votes": "many"}]}, r"rounds\.0\.votes: "),
        (lambda state: state | {"rounds": [state["rounds"][0] | {"win_rate": {}}]}, r"rounds\.0\.win_rate\.mean: "),
        (lambda state: state | {"rounds": [state["rounds"][0] | {"number": 2}]}, r"it has the rounds \[2\]"),
    ],
)
def test_a_damaged_state_is_a_sentence_that_names_the_file_and_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    chosen, state = begun(tmp_path, monkeypatch)
    (chosen.out / "align.json").write_text(json.dumps(change(state)), encoding="utf-8")
    with pytest.raises(RequestError, match=f"align.json .*{said}.* or begin in another folder with --out"):
        align(chosen, Voter(), Stages())


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"votes": {"fitted": "x", "held_out": 0}}'])
def test_a_fit_that_says_nothing_is_fitted_again_once_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    house, chosen = House(monkeypatch, [0.1]), settings(tmp_path / "align", rounds=1)
    with pytest.raises(Interrupted):
        align(chosen, Voter(leaves_at=2), Stages())
    reward = chosen.out / "round-1" / "reward"
    (reward / "fit.json").write_text(content, encoding="utf-8")
    with pytest.raises(RequestError, match=f"fit.json.*Remove {reward}"):
        align(chosen, Voter(), Stages())
    shutil.rmtree(reward)
    assert len(align(chosen, Voter(), Stages()).rounds) == 1
    assert len(house.fitted) == 2


def with_code(tmp_path: Path, **changes: Any) -> AlignSettings:
    (tmp_path / "blue.py").write_text("def blueness(images, prompts):\n    return images[:, 2].mean((1, 2))\n")
    rewards = {f"{tmp_path}/blue.py:blueness": 0.1}
    base = make_config({"generator": "emoji-onestep", "rewards": rewards, "reward_scale": 1.0})
    return replace(settings(tmp_path / "align", rounds=1, votes=10, **changes), base=base)


def folder_of_weights(tmp_path: Path) -> Path:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "beside"


@pytest.mark.parametrize("edited", ["blue.py", "beside/model.safetensors"])
def test_what_was_exchanged_under_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    beside = str(folder_of_weights(tmp_path))
    chosen, house = with_code(tmp_path, beside=[BenchEntry("beside", beside)]), House(monkeypatch, [0.1, 0.1])
    house.level[beside] = 0.2
    align(chosen, Voter(), Stages())
    align(chosen, Voter(), Stages())  # nothing was exchanged
    (tmp_path / edited).write_bytes((tmp_path / edited).read_bytes() + b"\n")
    with pytest.raises(RequestError, match=f"begun with another content of .*{edited.partition('/')[0]}.*Put it back"):
        align(replace(chosen, rounds=2), Voter(), Stages())
    assert len(house.trained) == 1


def test_what_is_exchanged_during_a_round_is_refused_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, house = replace(with_code(tmp_path), rounds=2), House(monkeypatch, [0.1, 0.1])
    trained = house.train

    def train_and_exchange(config: TrainConfig) -> None:
        trained(config)
        (tmp_path / "blue.py").write_text("def blueness(images, prompts):\n    return images[:, 0].mean((1, 2))\n")

    monkeypatch.setattr(rounds, "train", train_and_exchange)
    for _ in range(2):  # the round that was done is kept, with what it was begun with
        with pytest.raises(RequestError, match=r"another content of .*blue\.py"):
            align(chosen, Voter(), Stages())
    assert len(house.trained) == 1


def test_a_state_of_before_contents_were_noted_is_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, state = begun(tmp_path, monkeypatch)
    del state["contents"]
    (chosen.out / "align.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(RequestError, match="begun with other settings or prompts; they go on with those alone"):
        align(chosen, Voter(), Stages())


def test_fewer_rounds_than_are_done_and_another_place_name_the_last_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    House(monkeypatch, [0.1, 0.1])
    align(settings(tmp_path / "align", rounds=2, votes=10), Voter(), Stages())
    (tmp_path / "align").rename(tmp_path / "moved")
    result = align(settings(tmp_path / "moved", rounds=1, votes=10), Voter(), Stages())
    assert len(result.rounds) == 2
    assert result.generator == str(tmp_path / "moved" / "round-2" / "run")


def of_one_set(tmp_path: Path, **changes: Any) -> AlignSettings:
    (tmp_path / "prompts.txt").write_text("\n".join(f"fox {number}" for number in range(46)), encoding="utf-8")
    base = make_config({"generator": "emoji-onestep", "prompts": str(tmp_path / "prompts.txt"), "eval_prompts": None})
    return replace(settings(tmp_path / "align", rounds=1, votes=10, **changes), base=base)


def test_a_training_does_not_see_the_prompts_that_new_and_old_are_compared_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, chosen = House(monkeypatch, [0.1]), of_one_set(tmp_path)
    align(chosen, Voter(), Stages())
    _, held_out = prompts_of(chosen, 1)
    seen = [prompt.text for prompt in load_prompts(str(house.trained[0].prompts)).prompts]
    assert len(held_out) == 20
    assert seen == [f"fox {n}" for n in range(46) if f"fox {n}" not in {prompt.text for prompt in held_out}]
    apart = settings(tmp_path / "apart", rounds=1, votes=10)
    house.gains.append(0.1)
    align(apart, Voter(), Stages())
    assert house.trained[1].prompts == apart.trained.prompts  # of two sets that share none


def test_other_prompts_in_the_same_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    House(monkeypatch, [0.1])
    align(of_one_set(tmp_path), Voter(), Stages())
    chosen = of_one_set(tmp_path)
    with (tmp_path / "prompts.txt").open("a", encoding="utf-8") as file:
        file.write("\nan owl\n")
    with pytest.raises(RequestError, match="other settings or prompts"):
        align(chosen, Voter(), Stages())


def test_more_votes_than_the_prompts_have_pairs_are_refused_before_anybody_votes(tmp_path: Path) -> None:
    voter = Voter()
    with pytest.raises(RequestError, match=r"the 26 prompts that there are to vote on .* have 26 pairs"):
        align(replace(of_one_set(tmp_path, prompts=90, per_prompt=2), votes=80), voter, Stages())
    assert voter.asked == []


def test_two_processes_do_not_go_through_the_same_rounds(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    with locked(tmp_path), pytest.raises(RequestError, match="Another process is at work"):
        align(chosen, Voter(), Stages())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repeats": 0.9}, "--repeats is 0.9"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"compared": 5}, "--compared is 5; expected at least 20"),
        ({"per_prompt": 1}, "nothing to compare"),
        ({"votes": 1000}, "have 36 pairs"),
        ({"beside": [BenchEntry("generator", "emoji-reference")]}, "label what --beside names otherwise"),
    ],
)
def test_what_cannot_be_done(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        settings(tmp_path, **changes).check()


def test_too_few_prompts_are_refused_before_anybody_votes(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("a fox\nan owl\n", encoding="utf-8")
    few = settings(tmp_path / "align")
    base = make_config({"generator": "emoji-onestep", "prompts": str(tmp_path / "few.txt"), "eval_prompts": None})
    voter = Voter()
    with pytest.raises(RequestError, match="are too few: 1 to vote on, and 1 others"):
        align(replace(few, base=base), voter, Stages())
    assert voter.asked == []


def test_new_and_old_meet_on_the_same_noise(tmp_path: Path) -> None:
    with VoteFile.open(tmp_path / "votes", create=True) as votes:
        for maker in ("before", "after"):
            votes.add(
                NewCandidate(prompt, maker, torch.full((3, 4, 4), (number + 0.5 * (maker == "after")) / 4))
                for prompt in ("a fox", "an owl")
                for number in range(2)
            )
        images = votes.candidates()
    picker, seen = Duels(images, seed=1), set()
    by_id: dict[int, Candidate] = {image.id: image for image in images}
    while (pair := picker.pick("ann", seen)) is not None:
        seen.add(frozenset(pair))
        one, other = (by_id[number] for number in pair)
        assert (one.prompt, one.maker, other.maker) == (other.prompt, "before", "after")
        assert other.picture.read().mean() - one.picture.read().mean() == pytest.approx(0.125, abs=0.01)
    assert len(seen) == 4


def test_joined_numbers_images_anew(tmp_path: Path) -> None:
    parts = []
    for name in ("one", "two"):
        with VoteFile.open(tmp_path / name, create=True) as votes:
            votes.add(NewCandidate("a fox", "maker", torch.full((3, 2, 2), level)) for level in (0.1, 0.5, 0.9))
            votes.vote(votes.show("ann", 1, 3).id, "first")
            parts.append(votes.comparisons())
    together = joined(parts)
    assert len({one.id for c in together for one in (c.first, c.second)}) == 4
    assert [one.first.picture for one in together] == [part[0].first.picture for part in parts]


def test_joined_keeps_images_apart_that_are_numbered_from_zero() -> None:
    first, second = (Candidate(number, "a fox", "maker", PictureFile(Path(f"{number}.png"))) for number in (0, 1))
    one, other = joined([[Comparison(first, second, 1.0, "ann")], [Comparison(first, second, 1.0, "ann")]])
    assert len({one.first.id, one.second.id, other.first.id, other.second.id}) == 4
