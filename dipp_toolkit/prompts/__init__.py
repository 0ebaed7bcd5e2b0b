"""Prompt sets: read from files, datasets and plugins, cut to a part, put in a run's order, encoded once and cached."""
