"""What every room may use and what knows nothing of diffusion: paths, messages, files, devices, reproducibility."""
