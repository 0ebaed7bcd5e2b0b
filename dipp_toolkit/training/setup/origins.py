"""Where the weights that a run starts from and is trained against come from, and on which terms.

What cannot be looked up without a network is left out: a registered name states it, and so does the model card in a
folder, the one that an export of this toolkit carries among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import TrainConfig
from ...models.files.download_lists import CARD
from ...models.files.saved_generators import DIFFUSERS, place_of
from ...models.published import PublishedPipeline
from ...models.start_weights.source import parse_source
from ...registry import get_registry
from ...utils.licences import Licence, Origin
from ...utils.paths import is_there, user_path
from .name_checks import may_be_hub_id

MOST_BYTES = 1_000_000
"""Of a model card that is read."""


def start_origins(config: TrainConfig) -> list[Origin]:
    """The weights that a run's generator starts from, those of its network first."""
    given = [address for address in (*config.lora, config.weights) if address]
    own = [of_repository(source.hub) for address in given if (source := parse_source(address, scaled=True)).hub]
    if config.generator is None:
        return own + origins_of("reference", config.reference or "")
    return own + (origins_of("generator", config.generator) or origins_of("reference", config.generator))


def origins_of(kind: str, name: str) -> list[Origin]:
    """Where the weights of a generator or a reference come from.

    Args:
        kind: `"generator"` or `"reference"`.
        name: a registered name, a folder of this machine, `NAME@folder` or a hub id.

    Returns:
        Its network's first, and where that is put into a pipeline of another repository, that one's; empty where nobody
        says anything.
    """
    entry = get_registry().entries[kind].get(name)
    if entry is not None:
        origins = [] if entry.origin is None else [entry.origin]
        model = entry.factory
        if isinstance(model, PublishedPipeline) and model.base_licence is not None:
            origins.append(Origin(model.pipeline, model.base_licence))
        return origins
    place = place_of(name).removeprefix(DIFFUSERS)
    if is_there(place):
        return _of_folder(user_path(place))
    return [of_repository(place)] if may_be_hub_id(place) else []


def of_repository(hub: str) -> Origin:
    """A repository, with its licence as a registered name says it, or its model card in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    published = _published_licences().get(hub)
    if published is not None:
        return Origin(hub, published)
    card = try_to_load_from_cache(hub, CARD)
    return Origin(hub, Licence.from_card(_header(Path(card)), hub) if isinstance(card, str) else Licence())


def licence_notices(config: TrainConfig) -> list[str]:
    """A sentence for each repository of a run whose weights are not for commercial use."""
    start = start_origins(config)
    against = [origin for origin in origins_of("reference", config.reference or "") if origin not in start]
    return [
        f"Weights of {origin.hub or 'the generator'}: {origin.licence.text}.{follows}"
        for origins, follows in ((start, " It applies to what is trained from them."), (against, ""))
        for origin in origins
        if origin.licence.non_commercial
    ]


def _published_licences() -> dict[str, Licence]:
    registry = get_registry()
    return {
        origin.hub: origin.licence
        for kind in ("reference", "generator")
        for entry in registry.entries[kind].values()
        if (origin := entry.origin) is not None and origin.hub
    }


def _of_folder(folder: Path) -> list[Origin]:
    """What the model card of a pipeline or run folder says: its licence, and the repositories it was made from."""
    card = next((card for place in (folder, folder / "final") if (card := _header(place / CARD))), {})
    bases = card.get("base_model") or []
    hubs = [base for base in ([bases] if isinstance(bases, str) else bases) if isinstance(base, str)]
    first, *others = [hub for hub in hubs if may_be_hub_id(hub)] or [""]
    stated, published = Licence.from_card(card, first), of_repository(first).licence if first else Licence()
    same = not stated.id or stated.card_fields == published.card_fields
    own = published if same else stated
    return [Origin(first, own), *map(of_repository, others)] if first or own.id else []


def _header(path: Path) -> Mapping[str, Any]:
    """The YAML header of a model card; empty where there is none that can be read."""
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return {}
        header = metadata_load(path)
    except (OSError, ValueError, YAMLError):
        return {}
    return header if isinstance(header, dict) else {}
