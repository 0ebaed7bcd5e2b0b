"""Rounds of votes, a reward fitted to them and a training by it, until voters cannot tell new from old."""
