"""Benchmarks: images of many generators for the same prompts and seeds, what rewards and metrics say of them, rows."""
