"""Benchmarks: images of many generators for the same prompts and seeds, their scores by rewards and metrics, rows."""
