"""Text encoders, tokenizers and autoencoder: whether a generator's and a reference's are the same, and whose are used.

A generator and its reference read one condition and make latents of one space, so what encodes prompts and decodes
latents is one set of components, the setting `parts`. The training uses that set and the export carries it.
"""
