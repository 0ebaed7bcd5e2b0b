"""From settings to a training that is ready to start."""
