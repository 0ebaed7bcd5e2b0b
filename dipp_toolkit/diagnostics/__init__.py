"""Diagnostics: numbers that explain a run, each with a sentence on how to read it and a range it should stay in."""
