"""Stands in for mmcv's compiled operations, `mmcv._ext`, which no wheel has for a current torch.

This file is copied into the private environment of `geneval@isolated`. Mask2Former needs one operation of it, on GPUs
alone: multi-scale deformable attention, for which mmcv has the same formula in plain torch and takes that on CPUs. All
others can be imported, as mmdet does, and raise when they are called; none is in Mask2Former's way.
"""

from typing import Any, NoReturn


def ms_deform_attn_forward(
    value: Any,
    spatial_shapes: Any,
    level_start_index: Any,
    sampling_locations: Any,
    attention_weights: Any,
    im2col_step: int,
) -> Any:
    """mmcv's own formula in torch; the last argument only cuts a batch for the compiled kernel."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, spatial_shapes, sampling_locations, attention_weights)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_arguments: Any, **_options: Any) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operation {name} is compiled code, which this environment does not have; Mask2Former needs none "
            "of it. A detector that does is to be run with mmcv built from its sources."
        )

    return absent
