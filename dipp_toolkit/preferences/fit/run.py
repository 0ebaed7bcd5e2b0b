"""Fitting a reward to votes, from the votes to the folder."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import RequestError
from ...rewards.fitted_folders import FIT
from ...utils.atomic import whole_folder
from ...utils.disk_errors import AGAIN, reason_of, way_on
from ...utils.version import VERSION
from ..agreement import consistency
from ..pair import Comparison
from .backbone import Backbone, find_backbone, load_backbone
from .batches import PairCollator, pairs_of
from .card import card_text
from .folder import MOST_MEMBERS, write_folder
from .measure import Agreement, agreement_of
from .network import FittedConfig, PreferenceNetwork
from .scorer import FittedScorer
from .table import features_of, pixels_of, texts_of
from .trainer import FitSettings, check_trl, train_adapters, train_head
from .votes import Votes, data_digest, votes_from

PACKAGES = ("trl", "transformers", "peft", "torch")


@dataclass(frozen=True)
class FitResult:
    """A fitted reward.

    Attributes:
        folder: that `--reward` takes.
        held_out: its agreement with votes on prompts that it has not seen; None where none were held out.
        facts: what `fit.json` says.
    """

    folder: Path
    held_out: Agreement | None
    facts: dict[str, Any]


def fit_reward(
    comparisons: Sequence[Comparison],
    out: Path,
    *,
    backbone: str,
    settings: FitSettings | None = None,
    ensemble: int = 1,
    held_out: float = 0.2,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] = lambda _: None,
) -> FitResult:
    """Fit a reward to votes by TRL's `RewardTrainer`, measure it on prompts held out, and write its folder.

    The same votes, settings and seed give the same bits on the same machine. What is written was fitted to the prompts
    that were not held out, so that the agreement is that of the very weights.

    Args:
        comparisons: what voters said; ties and repeated questions are left out.
        out: the folder, which is new or holds an older fitted reward.
        backbone: as `find_backbone` takes it.
        settings: of each member.
        ensemble: members. Each of two or more is fitted to prompts drawn with replacement; the score is their mean,
            and their disagreement is the doubt that monitors watch.
        held_out: the share of prompts that is held out, 0 for none.
        seed: of the split, of the order of votes, and of adapters.
        device: where networks run.
        progress: told in a few words what is being done.

    Raises:
        RequestError: there are too few votes, an image is missing, the backbone is none, TRL is not installed, or an
            option is out of range.
    """
    settings = settings or FitSettings()
    settings.check()
    if not 0 <= seed < 2**31:
        raise RequestError(f"--seed is {seed}; expected a number from 0 to {2**31 - 1}.")
    if not 1 <= ensemble <= MOST_MEMBERS:
        raise RequestError(f"--ensemble is {ensemble}; expected 1 to {MOST_MEMBERS} members.")
    place = torch.device(device)
    check_trl(place)
    _check_out(out)
    votes = votes_from(comparisons, held_out, seed)
    source = find_backbone(backbone)
    digest = data_digest(votes, comparisons)
    progress(f"loading {backbone}")
    fit = _Fit(votes, load_backbone(source), settings, seed, place, progress)
    scorer, adapters, states = fit.members(ensemble)
    raw = fit.raw(scorer)
    seen = sorted({row for vote in votes.rows(False) for row in (votes.chosen[vote], votes.rejected[vote])})
    scorer.set_level(raw[:, seen])
    agreement, own = _agreement(votes, scorer, raw), consistency(comparisons)
    facts = {
        "toolkit": VERSION,
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "backbone": source.recorded(),
        "settings": asdict(settings),
        "held_out_share": held_out,
        "seed": seed,
        "members": ensemble,
        "data": digest,
        "votes": _counts(votes),
        "held_out": None if agreement is None else agreement.as_dict(),
        "voters_agreement": None if own is None else own.share.as_dict(),
        "deviation_within_prompts": _apart(scorer.centred(raw).mean(0)[seen], fit.prompts[seen]),
    }
    try:
        with whole_folder(out) as beside:
            beside.mkdir()
            write_folder(beside, scorer.cpu(), fit.backbone, facts, card_text(facts), adapters, states)
    except OSError as error:
        raise RequestError(f"Cannot write {out}: {reason_of(error)}. {way_on(error, AGAIN)}") from error
    return FitResult(out, agreement, facts)


def _check_out(out: Path) -> None:
    if out.exists() and not (out / FIT).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise RequestError(f"{out} is there already and holds no fitted reward; name another place with --out FOLDER.")


def _counts(votes: Votes) -> dict[str, int]:
    fitted, held = votes.rows(False), votes.rows(True)
    return {
        "fitted": len(fitted),
        "held_out": len(held),
        "ties": votes.ties,
        "repeats": votes.repeats,
        "images": len(votes.images),
        "prompts_fitted": len({votes.prompt_of(row) for row in fitted}),
        "prompts_held_out": len({votes.prompt_of(row) for row in held}),
    }


def _apart(scores: Float[Tensor, " images"], prompts: Int[Tensor, " images"]) -> float:
    """The deviation of scores of one prompt, the root of the mean square over images."""
    _, own = prompts.unique(return_inverse=True)
    count = int(own.max()) + 1
    means = torch.zeros(count).index_add_(0, own, scores.cpu()) / own.bincount()
    freedom = max(len(scores) - count, 1)
    return float(((scores.cpu() - means[own]).square().sum() / freedom).sqrt())


def _agreement(votes: Votes, scorer: FittedScorer, raw: Float[Tensor, "members images"]) -> Agreement | None:
    rows = votes.rows(True)
    if not rows:
        return None
    scores = scorer.centred(raw).mean(0)
    odds = scores[[votes.chosen[row] for row in rows]] - scores[[votes.rejected[row] for row in rows]]
    return agreement_of(odds, [votes.prompt_of(row) for row in rows])


class _Fit:
    """One fit's data, and its members as they are made."""

    def __init__(
        self,
        votes: Votes,
        backbone: Backbone,
        settings: FitSettings,
        seed: int,
        device: torch.device,
        progress: Callable[[str], None],
    ):
        self.votes, self.backbone, self.settings = votes, backbone, settings
        self.seed, self.device, self.progress = seed, device, progress
        backbone.network.to(device)
        config = _config(backbone, settings)
        self.plain = PreferenceNetwork(config, backbone.network).to(device)
        images, preprocess = votes.images, backbone.preprocess
        progress(f"looking at {len(images)} images")
        self.features = features_of(self.plain.image_features, images, preprocess, device)
        self.texts = texts_of(FittedScorer([self.plain]), images, backbone, device)
        numbers = {prompt: number for number, prompt in enumerate(votes.prompts)}
        self.prompts = torch.tensor([numbers[image.prompt] for image in images])
        self.ids = {prompt: backbone.ids([prompt])[0].tolist() for prompt in votes.prompts}

    def members(self, count: int) -> tuple[FittedScorer, list[Any], dict[str, Any]]:
        """Fit so many; the scorer, the adapters, and TRL's records by file name."""
        networks: list[PreferenceNetwork] = []
        adapters: list[Any] = []
        states: dict[str, Any] = {}
        self.plain.config.members = count
        for member in range(count):
            self.progress(f"fitting {member + 1} of {count}" if count > 1 else "fitting")
            network, adapter, own = self._member(member, resampled=count > 1)
            networks.append(network)
            adapters += [adapter] if adapter is not None else []
            ending = f"-{member}" if count > 1 else ""
            states |= {f"{stage}{ending}.json": state for stage, state in own.items()}
        return FittedScorer(networks), adapters, states

    def raw(self, scorer: FittedScorer) -> Float[Tensor, "members images"]:
        """The members' log-odds of all images."""
        scorer.eval().requires_grad_(False).to(self.device)
        rows = []
        for network in cast(Any, scorer.networks):
            features = self.features
            if self.settings.lora_rank:
                features = features_of(network.image_features, self.votes.images, self.backbone.preprocess, self.device)
            logits = network(features=features.to(self.device), texts=self.texts.to(self.device)).logits
            rows.append(logits[:, 0])
        return torch.stack(rows)

    def _member(self, member: int, resampled: bool) -> tuple[PreferenceNetwork, Any, dict[str, Any]]:
        settings, seed = self.settings, self.seed + member
        pairs = pairs_of(self.votes, self._drawn(member) if resampled else self.votes.rows(False), self.ids)
        network = PreferenceNetwork(self.plain.config, self.backbone.network).to(self.device)
        fitted = torch.tensor(sorted({row for side in ("chosen", "rejected") for row in pairs[side]}))
        everything = network.all_features(self.features[fitted].to(self.device), self.texts[fitted].to(self.device))
        _, numbers = self.prompts[fitted].unique(return_inverse=True)
        network.head.set_units(everything, numbers.to(self.device))
        collator = PairCollator(lambda rows: {"features": self.features[rows]}, self.texts)
        tokenizer = self.backbone.tokenizer
        trained, state = train_head(network, pairs, collator, tokenizer, settings, seed, self.device)
        states = {"trainer_state": state}
        if not settings.lora_rank:
            return cast(PreferenceNetwork, trained), None, states
        network = PreferenceNetwork(self.plain.config, copy.deepcopy(self.backbone.network)).to(self.device)
        network.head.load_state_dict(cast(Any, trained).head.state_dict())
        collator = PairCollator(self._pixels, self.texts)
        adapted, states["trainer_state-lora"] = train_adapters(
            network, pairs, collator, tokenizer, settings, seed, self.device
        )
        return copy.deepcopy(adapted).merge_and_unload(), adapted, states

    def _pixels(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return {"pixel_values": pixels_of([self.votes.images[row] for row in rows], self.backbone.preprocess)}

    def _drawn(self, member: int) -> list[int]:
        """Votes of prompts drawn with replacement."""
        rows = self.votes.rows(False)
        prompts = list(dict.fromkeys(self.votes.prompt_of(row) for row in rows))
        drawn = random.Random(f"member {member} {self.seed}").choices(prompts, k=len(prompts))
        return [row for prompt in drawn for row in rows if self.votes.prompt_of(row) == prompt]


def _config(backbone: Backbone, settings: FitSettings) -> FittedConfig:
    towers = backbone.network.config
    projected = backbone.kind == "clip"
    return FittedConfig(
        kind=backbone.kind,
        backbone=backbone.place.recorded(),
        width=towers.vision_config.hidden_size,
        embedding=towers.projection_dim if projected else towers.vision_config.hidden_size,
        image_mean=list(backbone.preprocess.mean),
        image_std=list(backbone.preprocess.std),
        lora_rank=settings.lora_rank,
    )
