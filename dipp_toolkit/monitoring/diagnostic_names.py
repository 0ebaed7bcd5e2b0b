"""The names of the diagnostics' warnings; importing them costs nothing."""

FAR = "far-from-reference"
LAG = "assistant-lag"
PULL = "uneven-pull"
OPPOSED = "opposed-pull"
COLOUR = "saturated-samples"

NAMES = (FAR, LAG, PULL, OPPOSED, COLOUR)
"""Every warning there is, in the order of the report."""
