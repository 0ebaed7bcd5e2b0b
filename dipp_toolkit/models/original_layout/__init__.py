"""Checkpoints of one file, in the names of the code that a model was published with: the way back from diffusers.

diffusers converts them to its own names (`from_single_file`); the inverse is in scripts of its repository alone, which
are in no package. What is the network's is the family's, `OriginalLayout` in `models/family.py`; what several families
share is here.
"""
