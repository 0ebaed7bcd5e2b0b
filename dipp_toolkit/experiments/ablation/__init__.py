"""Ablations: one training for every cell of a grid of settings, measured alike, on one page."""
