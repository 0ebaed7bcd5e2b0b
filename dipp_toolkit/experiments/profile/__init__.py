"""Where the time and the memory of a training step go, measured on a few steps of a run's own settings."""
