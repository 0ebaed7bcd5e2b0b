"""Where each published prompt set lies, and how it comes here: once, checked, and from then on without the network."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.prompt_files import PromptList, read_prompt_file
from dipp_toolkit.roles import Prompt

SECONDS = 60
"""Longest that a download may stay silent."""
MOST_BYTES = 2**26
GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Published:
    """A prompt set as its authors published it.

    Attributes:
        count: prompts that it must have.
        address: of the file at a fixed commit, or empty.
        digest: SHA-256 of that file.
        hub: dataset on the Hugging Face hub, or empty; its revision is the user's to name.
        files: on the hub, by category.
        about: where a copy for `path` is found, where there is neither.
    """

    count: int
    address: str = ""
    digest: str = ""
    hub: str = ""
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
    "drawbench": Published(200, about="the authors' sheet, saved as CSV with the columns Prompts and Category"),
    "coco-2017": Published(5000, about="annotations/captions_val2017.json out of annotations_trainval2017.zip"),
}


def load(name: str, path: str | None = None, revision: str | None = None) -> PromptList:
    """A published prompt set.

    Args:
        name: one of `SETS`.
        path: a local copy, in the published format; the count is not checked then.
        revision: commit of the hub's dataset, for sets that are only there.

    Raises:
        RequestError: it cannot be fetched, or is not what was published.
    """
    published = SETS[name]
    if path is not None:
        return read_prompt_file(Path(path).expanduser(), name)
    if published.address:
        found = read_prompt_file(fetched(name, published), name)
    elif published.hub and revision is not None:
        found = _from_hub(name, published, revision)
    else:
        pinned = f", or the commit of {published.hub} on the hub: '{name}?revision=COMMIT'" if published.hub else ""
        raise RequestError(
            f"The prompt set '{name}' has no download with a known digest. Name a local copy: '{name}?path=FILE' "
            f"({published.about}){pinned}."
        )
    if len(found.prompts) != published.count:
        raise RequestError(
            f"The prompt set '{name}' holds {len(found.prompts)} prompts; {published.count} were published. "
            f"Name a local copy that you trust: '{name}?path=FILE'."
        )
    return found


def cache_folder() -> Path:
    """`$DIPP_CACHE/prompt-sets`, or `~/.cache/dipp/prompt-sets`."""
    return Path(os.environ.get("DIPP_CACHE", "~/.cache/dipp")).expanduser() / "prompt-sets"


def fetched(name: str, published: Published) -> Path:
    """The set's file in the cache, downloaded where it is not there or not whole.

    Raises:
        RequestError: the network does not answer, or the file is not the published one.
    """
    target = cache_folder() / published.digest[:16] / published.address.rsplit("/", 1)[-1]
    if target.is_file() and _digest(target.read_bytes()) == published.digest:
        return target
    instead = f"Name a local copy instead: '{name}?path=FILE'."
    try:
        with urllib.request.urlopen(published.address, timeout=SECONDS) as answer:
            content: bytes = answer.read(MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RequestError(f"Cannot fetch '{name}' from {published.address}: {reason}. {instead}") from error
    if _digest(content) != published.digest:
        raise RequestError(f"What {published.address} gave is not the file that was published. {instead}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
        beside.write_bytes(content)
        beside.replace(target)
    except OSError as error:
        raise RequestError(f"Cannot keep the prompt set in {target.parent}: {error.strerror}.") from error
    return target


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _from_hub(name: str, published: Published, revision: str) -> PromptList:
    from huggingface_hub import hf_hub_download

    prompts: list[Prompt] = []
    for category, file in published.files.items():
        try:
            path = hf_hub_download(published.hub, file, repo_type="dataset", revision=revision)
        except Exception as error:  # the hub's client raises errors of several libraries
            raise RequestError(
                f"Cannot fetch {file} of the dataset {published.hub} at {revision}: {first_line(error)}. "
                f"Name a local copy instead: '{name}?path=FILE'."
            ) from error
        part = read_prompt_file(Path(path))
        prompts += [Prompt(one.text, f"{category}-{one.id}", category) for one in part.prompts]
    return PromptList(name, prompts)
