"""The mathematics of diffusion and nothing else: schedules, predictions, the denoiser, conditions and times."""
