"""Prompts: files and subsets, the order they are drawn in, and their encoded conditions."""
