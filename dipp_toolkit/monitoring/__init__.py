"""Monitors: what goes wrong with aligned generators, each with a definition, a threshold and a sentence."""
