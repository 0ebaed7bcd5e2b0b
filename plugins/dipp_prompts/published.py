"""Where each published prompt set lies, and how it comes here: once, checked, and from then on without the network."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.models.files.fetching import NotHere, check_fetching, hub_file
from dipp_toolkit.prompts.dataset import PromptList
from dipp_toolkit.prompts.files import prompts_of_dataset, read_prompt_file
from dipp_toolkit.protocols import Prompt
from dipp_toolkit.utils.paths import cache_place, user_path

SECONDS = 60
"""Longest that a download may stay silent."""
CHUNK = 2**20
GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Published:
    """A prompt set as its authors published it.

    Attributes:
        count: prompts that it must have.
        address: of the file, at a fixed commit where it has commits, or empty.
        digest: SHA-256 of that file.
        member: the prompts' file inside it, where it is a ZIP.
        most_bytes: no more is downloaded.
        hub: dataset on the Hugging Face hub, or empty.
        revision: its commit; the user has to name one where this is empty.
        files: on the hub, by category; the empty category leaves the file's own.
        about: what a copy for `path` is, where nothing is fetched.
    """

    count: int
    address: str = ""
    digest: str = ""
    member: str = ""
    most_bytes: int = 2**26
    hub: str = ""
    revision: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    about: str = ""


SETS: dict[str, Published] = {
    "parti": Published(
        1632,
        f"{GITHUB}/google-research/parti/5a657978134374ce28973948331b319adef164bd/PartiPrompts.tsv",
        "fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
    ),
    "geneval": Published(
        553,
        f"{GITHUB}/djghosh13/geneval/af4902f24d3ca90ebbb446dd9891a59e0f82725f/prompts/evaluation_metadata.jsonl",
        "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
    ),
    "imagereward-benchmark": Published(
        100,
        f"{GITHUB}/THUDM/ImageReward/c1392c6dd0fd6ecd6d416c96959ab744a6d0a8fb/benchmark/benchmark-prompts.json",
        "34682e824ebb3ad8e2531b3cde1b362dc72e1e29946ff6fab77bb49e9edb4b21",
    ),
    "pickapic-test": Published(
        2048,
        f"{GITHUB}/yifan123/flow_grpo/ac4c86e8cae021841f1fde853d340e0db67690dd/dataset/pickscore/test.txt",
        "d75c025fa451866e70f7e36243f7cdd93095523cb51f5f9651f2ce3236d20262",
    ),
    "hpdv2": Published(
        3200,
        hub="zhwang/HPDv2",
        files={
            "animation": "benchmark/anime.json",
            "concept-art": "benchmark/concept-art.json",
            "paintings": "benchmark/paintings.json",
            "photo": "benchmark/photo.json",
        },
        about="a JSON object of the four styles' lists, or one of the lists",
    ),
    "drawbench": Published(
        200,
        hub="sayakpaul/drawbench",
        revision="ad794cba698c253ffdb6d18eff3fc87b004c1135",
        files={"": "DrawBench Prompts - Sheet1.csv"},
    ),
    "coco-2017": Published(
        5000,
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        member="annotations/captions_val2017.json",
        most_bytes=2**28,
    ),
}


def load(name: str, path: str | None = None, revision: str | None = None) -> PromptList:
    """A published prompt set.

    Args:
        name: one of `SETS`.
        path: a local copy, in the published format; the count is not checked then.
        revision: commit of the hub's dataset, for sets that come from there.

    Raises:
        RequestError: it cannot be fetched, or is not what was published.
    """
    published = SETS[name]
    if path is not None:
        return read_prompt_file(user_path(path), name)
    if published.address:
        if revision is not None:
            raise RequestError(f"The prompt set '{name}' is pinned to one file and takes no revision.")
        prompts = read_prompt_file(fetched(name, published), name)
    elif revision or published.revision:
        prompts = _from_hub(name, published, revision or published.revision)
    else:
        raise RequestError(
            f"The prompt set '{name}' is not pinned to a revision. Name the commit of {published.hub} on "
            f"the hub, '{name}?revision=COMMIT', or a local copy, '{name}?path=FILE' ({published.about})."
        )
    if len(prompts.prompts) != published.count:
        raise RequestError(
            f"The prompt set '{name}' holds {len(prompts.prompts)} prompts; {published.count} were published. "
            f"Name a local copy that you trust: '{name}?path=FILE'."
        )
    return prompts


def load_from_hub(
    dataset: str, split: str = "train", config: str | None = None, revision: str | None = None
) -> PromptList:
    """The prompts of any dataset on the Hugging Face hub, through the library's own loader and cache; no code of its
    repository is run.

    Args:
        dataset: owner/name.
        split: which of its parts; the library's slices, `train[:100]`, as well.
        config: which of its configurations, where it has several.
        revision: a commit; the newest where None.

    Raises:
        NotHere: this is a dry run.
        RequestError: it cannot be fetched, or has no column of prompts.
    """
    check_fetching(f"the split {split} of huggingface.co/datasets/{dataset}")
    import datasets

    try:
        rows = datasets.load_dataset(dataset, config, split=split, revision=revision)
    except Exception as error:  # the library and the hub's client raise errors of several libraries
        raise RequestError(f"Cannot load the split {split} of the dataset {dataset}: {first_line(error)}.") from error
    return prompts_of_dataset(rows, dataset)


def cache_folder() -> Path:
    """`$DIPP_CACHE/prompt-sets`, or `~/.cache/dipp/prompt-sets`."""
    return cache_place("prompt-sets")


def fetched(name: str, published: Published) -> Path:
    """The set's file in the cache, downloaded where it is not there.

    Raises:
        RequestError: the network does not answer, or the file is not the published one.
    """
    folder = cache_folder() / published.digest[:16]
    target = folder / (published.member or published.address).rsplit("/", 1)[-1]
    if target.is_file():  # it was checked before it got this name
        return target
    check_fetching(published.address)
    instead = f"Name a local copy instead: '{name}?path=FILE'."
    download = folder / f".download.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digest = _download(published, download)
        if digest != published.digest:
            raise RequestError(f"The file from {published.address} is not the file that was published. {instead}")
        if published.member:
            beside = folder / f".member.{os.getpid()}.partial"
            with zipfile.ZipFile(download) as archive:
                beside.write_bytes(archive.read(published.member))
            beside.replace(target)
        else:
            download.replace(target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise RequestError(f"Cannot fetch '{name}' from {published.address}: {reason}. {instead}") from error
    finally:
        download.unlink(missing_ok=True)
    return target


def _download(published: Published, target: Path) -> str:
    """Write the file, at most `most_bytes` of it; returns its SHA-256."""
    digest, done = hashlib.sha256(), 0
    with urllib.request.urlopen(published.address, timeout=SECONDS) as response, target.open("wb") as file:
        while done < published.most_bytes and (part := response.read(CHUNK)):
            file.write(part)
            digest.update(part)
            done += len(part)
    return digest.hexdigest()


def _from_hub(name: str, published: Published, revision: str) -> PromptList:
    prompts: list[Prompt] = []
    for category, file in published.files.items():
        try:
            path = hub_file(published.hub, file, kind="dataset", revision=revision)
        except NotHere:
            raise
        except Exception as error:  # the hub's client raises errors of several libraries
            raise RequestError(
                f"Cannot fetch {file} of the dataset {published.hub} at {revision}: {first_line(error)}. "
                f"Name a local copy instead: '{name}?path=FILE'."
            ) from error
        part = read_prompt_file(path)
        prompts += [
            Prompt(prompt.text, f"{category}-{prompt.id}", category) if category else prompt for prompt in part.prompts
        ]
    return PromptList(name, prompts)
