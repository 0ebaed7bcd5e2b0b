"""A run's generator for other programs: a LoRA, a checkpoint of one file, a workflow for ComfyUI, each checked.

The mathematics and the names are in `models/`; here it is put together, written and read back by plain diffusers.
"""
