"""Votes as TRL's trainer reads them: a `datasets.Dataset` of pairs, and the collator that looks their images up.

TRL takes a dataset as ready where it has `chosen_ids` and `rejected_ids`, the tokens of what was compared. Ours are the
prompt's, twice, and beside them `chosen` and `rejected` say which images of a table were compared. TRL's own collator
would drop these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .votes import Votes


def pairs_of(votes: Votes, rows: Sequence[int], ids: Mapping[str, list[int]]) -> Any:
    """A `datasets.Dataset` with a row a vote.

    Args:
        votes: all of them.
        rows: those that are wanted.
        ids: tokens by prompt, all of one length.
    """
    from datasets import Dataset

    tokens = [ids[votes.prompt_of(row)] for row in rows]
    return Dataset.from_dict(
        {
            "chosen_ids": tokens,
            "rejected_ids": tokens,
            "chosen": [votes.chosen[row] for row in rows],
            "rejected": [votes.rejected[row] for row in rows],
        }
    )


@dataclass(frozen=True)
class PairCollator:
    """Makes a batch of votes: the preferred images first, then the others, as TRL's loss halves its scores.

    Attributes:
        images: rows of the table of images, by number, as a keyword of the network: `features` or `pixel_values`.
        texts: embeddings of the prompt of each image of the table.
    """

    images: Callable[[list[int]], dict[str, Tensor]]
    texts: Float[Tensor, "images embedding"]

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The keywords of the network, with an `attention_mask`, by which TRL counts."""
        rows = [example[side] for side in ("chosen", "rejected") for example in examples]
        ids: Int[Tensor, "images tokens"] = torch.tensor(
            [example[f"{side}_ids"] for side in ("chosen", "rejected") for example in examples]
        )
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "texts": self.texts[rows],
            **self.images(rows),
        }
