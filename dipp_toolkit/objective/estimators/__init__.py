"""Gradients of rewards that have none: estimated from scores alone."""
