"""Measurements behind the numbers in the docs, a folder each; README.md beside this file lists them."""
