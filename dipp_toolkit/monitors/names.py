"""The names of the monitors' warnings; importing them costs nothing."""

OVER_OPTIMISATION = "over-optimisation"
DIVERSITY_COLLAPSE = "diversity-collapse"
OVER_SATURATION = "over-saturation"

NAMES = (OVER_OPTIMISATION, DIVERSITY_COLLAPSE, OVER_SATURATION)
"""Every warning there is."""

ALL = "all"
"""What stands for every warning where a run is told which ones stop it."""
