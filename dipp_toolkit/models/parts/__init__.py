"""Text encoders, tokenizers and autoencoder of a pipeline: whether two pipelines have the same, and whose are used.

A generator and its reference read one condition and make latents of one space, so that what encodes prompts and decodes
latents is one set of parts. It is the set that the training uses and that the export carries.
"""
