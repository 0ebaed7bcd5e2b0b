"""FLUX.1 pipelines."""
