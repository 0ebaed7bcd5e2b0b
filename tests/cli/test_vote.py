"""`dipp vote` as it is typed."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import url2pathname, urlopen

import pytest

from dipp_cli.app import main
from dipp_toolkit.experiments.voting import serve
from dipp_toolkit.preferences.vote_file import VoteFile

SOURCES = ("--generators", "emoji-onestep,emoji-unet-onestep", "--prompts", "emoji-heldout", "--count", "6", "--quiet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of votes with images of two generators, and eight simulated votes."""
    folder = tmp_path_factory.mktemp("made") / "votes"
    words = ("--simulate", "emoji-preference", "--goal", "6", "--noise", "0")
    assert main(["vote", str(folder), *SOURCES, *words]) == 0
    return folder


def test_a_simulated_voter_votes_and_goes_on_where_it_was(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with VoteFile.open(made) as votes:
        assert len(votes.candidates()) == 12
        before = votes.comparisons()
    assert [one.voter for one in before] == ["simulated"] * 6
    words = ["vote", str(made), "--simulate", "emoji-preference", "--goal", "4", "--voter", "second", "--noise", "0"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["voter"], told["given"], told["goal"]) == ("second", 4, 4)
    assert sum(asked for _, asked in told["makers"].values()) == 8
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "4 of 4 votes by second are kept in" in out
    assert "preferred in" in out
    with VoteFile.open(made) as votes:
        assert votes.comparisons()[:6] == before
        assert len(votes.comparisons()) == 10


def test_the_same_seed_asks_and_answers_the_same(tmp_path: Path) -> None:
    def votes_of(name: str) -> list[tuple[int, int, float]]:
        words = ("--simulate", "emoji-preference", "--goal", "6", "--seed", "3", "--noise", "0.3")
        assert main(["vote", str(tmp_path / name), *SOURCES, *words]) == 0
        with VoteFile.open(tmp_path / name) as votes:
            return [(one.first.id, one.second.id, one.outcome) for one in votes.comparisons()]

    assert votes_of("a") == votes_of("b")


def test_a_simulated_voter_errs_anew_when_asked_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--simulate", "emoji-preference", "--noise", "0.5", "--voter", "wavering", "--goal", "12")
    assert main(["vote", str(made), *words, "--repeats", "0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["repeats"] == 3
    assert 0 < told["consistent"] < told["repeats"]


def test_folders_of_pictures_beside_a_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--prompt", "fox on blue", "--prompt", "cake on pink", "--out", "mine"]) == 0
    words = [
        "vote",
        "v",
        "--images",
        "mine",
        "--generators",
        "theirs=emoji-unet-onestep",
        "--simulate",
        "colourfulness",
    ]
    assert main([*words, "--goal", "2", "--quiet"]) == 0
    with VoteFile.open("v") as votes:
        assert sorted((image.prompt, image.maker) for image in votes.candidates()) == [
            ("cake on pink", "mine"), ("cake on pink", "theirs"), ("fox on blue", "mine"), ("fox on blue", "theirs"),
        ]  # fmt: skip
        assert len(votes.comparisons()) == 2
    assert main([*words, "--goal", "9", "--quiet"]) == 0, "the same again adds nothing, and all pairs are voted on"
    with VoteFile.open("v") as votes:
        assert len(votes.candidates()) == 4
        assert len({one.pair for one in votes.comparisons()}) == 2


def test_the_page_is_served_until_ctrl_c_and_again_at_the_same_address(made: Path, tmp_path: Path) -> None:
    environment = os.environ | {"DIPP_CACHE": str(tmp_path)}
    links = []
    for _ in range(2):
        command = [sys.executable, "-m", "dipp_cli", "vote", str(made), "--port", "0", "--voter", "Ann B", "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
            try:
                assert process.stdout is not None and process.stderr is not None
                line = process.stdout.readline()
                assert line, process.stderr.read()
                told = json.loads(line)
                links.append(told["url"].partition(f":{told['port']}/"))
                with urlopen(told["url"]) as page:
                    assert b"Which image is better?" in page.read()
                with pytest.raises(HTTPError) as refused:
                    urlopen(f"http://127.0.0.1:{told['port']}/")
                assert refused.value.code == 403
                process.send_signal(signal.SIGINT)
                assert process.wait(120) == 0
                assert (process.stdout.read(), process.stderr.read()) == ("", "")
            finally:
                process.kill()
    assert links[0][2] == links[1][2]
    assert links[0][2].endswith("/?voter=Ann%20B")


def test_ctrl_c_says_where_the_votes_are(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "run_page", stopped)
    assert main(["vote", str(made), "--port", "0", "--no-browser"]) == 0
    out = capsys.readouterr().out
    assert "12 images to compare" in out
    assert "ssh -L" in out
    assert f"Go on with: dipp vote {made}" in out
    assert "6 of simulated" in out


def test_the_browser_is_led_to_the_link_with_the_voters_name(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    pages: list[str] = []
    modes: list[int] = []

    def stopped(config: object, listening: socket.socket, done: object) -> None:
        listening.close()
        path = Path(url2pathname(urlsplit(asked[0]).path))
        pages.append(path.read_text(encoding="utf-8"))
        modes.append(path.stat().st_mode & 0o077)
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "has_browser", lambda: True)
    monkeypatch.setattr(serve.webbrowser, "open", asked.append)
    monkeypatch.setattr(serve, "serve_until_stopped", stopped)
    assert main(["vote", str(made), "--port", "0", "--voter", "Ann B"]) == 0
    assert f"/{serve.token_of(made)}/?voter=Ann%20B" in pages[0]
    assert serve.token_of(made) not in asked[0]  # everybody on the machine reads what a browser is started with
    assert modes == [0]
    assert not list(made.glob("*.html"))


def test_where_no_file_can_lead_there_the_page_is_served_all_the_same(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    served: list[socket.socket] = []
    monkeypatch.setattr(serve, "has_browser", lambda: True)
    monkeypatch.setattr(serve.tempfile, "mkstemp", full)
    monkeypatch.setattr(serve, "serve_until_stopped", lambda config, listening, done: served.append(listening))
    main(["vote", str(made), "--port", "0"])
    served[0].close()


def test_a_token_is_kept_where_nobody_else_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    token = serve.token_of(tmp_path / "votes")
    assert serve.token_of(tmp_path / "votes") == token
    assert serve.token_of(tmp_path / "others") != token
    kept = sorted((tmp_path / "cache" / "vote").iterdir())
    assert len(kept) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)
    for path in kept:
        path.write_text("../x", encoding="utf-8")
    again = serve.token_of(tmp_path / "votes")
    assert serve.TOKEN.fullmatch(again)
    assert again != token
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "file"))
    assert serve.TOKEN.fullmatch(serve.token_of(tmp_path / "votes"))


def test_without_the_packages_there_is_a_sentence(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "NEEDED", ("no_such_package",))
    assert main(["vote", str(made)]) == 2
    assert "The page of dipp vote needs no_such_package, which is not installed." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "There are no votes in votes yet. Name what is to be compared"),
        ("--generators emoji-onestep", "Name the prompts that the generators draw"),
        ("--generators emoji-onestop --prompts emoji-heldout", "Did you mean 'emoji-onestep'?"),
        ("--generators emoji-onestep --prompts emoji-heldot", "Did you mean 'emoji-heldout'?"),
        ("--images nowhere", "There is no folder of images nowhere"),
        ("--images empty", "The folder empty contains no images"),
        ("--images one --prompt a --prompts b.txt", "not by both"),
        ("--prompt a", "--prompt is the prompt of the pictures in --images"),
        ("--prompts emoji-heldout", "--prompts says what generators draw"),
        ("--images one --prompt a --count 0", "--count is 0"),
        ("--images one --prompt a --per-prompt 0", "--per-prompt is 0"),
        ("--images one --prompt a --seed=-1", "--seed is -1"),
        ("--images one --prompt a --picking best", "'best'"),
        ("--images one --prompt a --goal 0", "--goal is 0"),
        ("--images one --prompt a --repeats 2", "--repeats is 2"),
        ("--images one --prompt a --simulate colourfulness --noise 2", "noise is 2"),
        ("--images one --prompt a --batch-size 0", "--batch-size is 0"),
        ("--check-with colourfulness", "there is no --import"),
        ("--images one --prompt a --voter ''", "A voter's name has 1 to"),
        ("--images one --prompt a --set generator.x.steps=2", "--generators names none"),
        ("--images one --prompt a --set reward.x.a=2", "--simulate names none"),
        ("--images one --prompt a --set steps=2", "cannot be used here"),
        ("--images one --prompt a", "There is nothing to compare in votes: of its 1 image"),
        ("--images one --prompt a --simulate emoji-preferenc", "Did you mean 'emoji-preference'?"),
        ("one/1.png", "The folder of votes one/1.png cannot be made: one/1.png is a file."),
        ("--port 99999", "65535"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_a_sentence(
    words: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    import torch

    from dipp_toolkit.utils.images import save_image

    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    save_image(torch.zeros(3, 4, 4), Path("one/1.png"))
    assert main(["vote", *shlex.split(words)]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(Path("votes").rglob("*.png")) or "nothing to compare" in sentence, "it was refused after the work"
