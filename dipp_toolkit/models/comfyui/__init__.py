"""A generator in ComfyUI (github.com/comfyanonymous/ComfyUI): files where its loaders look, sigmas, and a workflow.

Names of nodes, their inputs and formulas are those of its published source. ComfyUI itself is in no package and has not
been run here: the formulas are restated in the tests and compared with the generator.
"""
