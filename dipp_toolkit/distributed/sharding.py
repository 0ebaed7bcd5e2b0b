"""Weights, gradients and optimiser states cut into one part a process (FSDP2), as accelerate's settings ask for it."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import RequestError, first_line
from .group import Processes


@dataclass
class Sharding:
    """Shards networks over all processes.

    Attributes:
        processes: those that hold a part each.
        device: where this process computes.
        plugin: accelerate's `FullyShardedDataParallelPlugin`, filled from the launcher's settings.
        skeletons: by the sharded network, the same network without weights.
    """

    processes: Processes
    device: torch.device
    plugin: Any
    skeletons: dict[int, nn.Module] = field(default_factory=dict)

    @classmethod
    def launched(cls, processes: Processes, device: torch.device) -> Sharding | None:
        """What the launcher asks for; None where it does not ask for sharding.

        Raises:
            RequestError: it asks for FSDP's first version, or for something FSDP cannot do.
        """
        if processes.alone or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
            return None
        from accelerate import FullyShardedDataParallelPlugin

        try:
            plugin = FullyShardedDataParallelPlugin()
        except (ValueError, ImportError) as error:
            raise RequestError(f"accelerate's settings of FSDP cannot be used: {first_line(error)}.") from error
        if plugin.fsdp_version != 2:
            raise RequestError(
                "The launcher asks for FSDP 1; expected FSDP 2. Set fsdp_version: 2 in accelerate's configuration file."
            )
        # With it transformers would give every process but the first networks without weights, rewards included.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        return cls(processes, device, plugin)

    def shard(self, network: nn.Module) -> nn.Module:
        """Keep this process's part of a network's weights; the rest comes when a block needs it, and goes again.

        Every block that diffusers holds together (`_no_split_modules`, or the launcher's
        `fsdp_transformer_layer_cls_to_wrap`) is gathered by itself, and let go of after its forward pass: between
        passes a network's parameters are this process's parts, for averages and checkpoints. Weights move to the
        device block by block, so that it never has to hold the whole.

        Args:
            network: is changed in place.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.skeletons[id(network)] = without_weights(network)
        mesh = init_device_mesh(self.device.type, (self.processes.count,))
        options: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": True}
        if self.plugin.cpu_offload:
            options["offload_policy"] = self.plugin.cpu_offload
        names = set(self.plugin.transformer_cls_names_to_wrap or getattr(network, "_no_split_modules", None) or ())
        for module in reversed(list(network.modules())[1:]):
            if type(module).__name__ in names:
                fully_shard(module, **options)
        fully_shard(network, **options)
        return network

    def whole(self, network: nn.Module) -> nn.Module | None:
        """A plain network with all weights, on the CPU of the first process; None in the others.

        Every process has to ask.
        """
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state: dict[str, Any] = get_model_state_dict(network, options=options)
        if not self.processes.main:
            return None
        plain = copy.deepcopy(self.skeletons[id(network)])
        plain.load_state_dict(state, assign=True)
        return plain


def without_weights(network: nn.Module) -> nn.Module:
    """The same network whose parameters have shapes and no memory; buffers, which are small, are copied."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in network.parameters()
    }
    memo |= {id(buffer): buffer.detach().to("cpu", copy=True) for buffer in network.buffers()}
    return copy.deepcopy(network, memo)
