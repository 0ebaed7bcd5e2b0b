"""A pipeline family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dipp_toolkit.condition import Condition
from dipp_toolkit.folders import component_config
from dipp_toolkit.plain_json import read_json
from dipp_toolkit.stock_call import StockCall, pack, unpack
from dipp_toolkit.tiny_tokenizers import tiny_t5_tokenizer
from dipp_toolkit.twins import finished, tiny_t5_encoder, tiny_vae, write_with

__all__ = [
    "EmberFamily", "component_config", "finished", "pack", "read_json", "tiny_t5_encoder", "tiny_t5_tokenizer",
    "tiny_vae", "unpack", "write_with",
]  # fmt: skip


class EmberFamily:
    network_name = "transformer"
    stock_call = StockCall(begins_at_zero=True)

    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Condition:
        return Condition(tuple(prompts), {"embedding": torch.zeros(len(prompts), 3)})

    def token_limit(self, pipeline: Any) -> tuple[Any, int]:
        return pipeline.tokenizer, 6

    def forward(self, network: nn.Module, x_t: Tensor, network_time: Tensor, condition: Condition) -> Tensor:
        output: Tensor = network(x_t, network_time)
        return output

    def blank(self, network_config: Mapping[str, Any], batch: int) -> Condition:
        return self.encode(None, [""] * batch)

    def write_twin(self, folder: Path, **options: Any) -> None:
        write_with(lambda pipeline_folder: pipeline_folder.mkdir(), folder, "EmberPipeline", options)
