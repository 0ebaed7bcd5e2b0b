"""Rewards in a virtual environment of their own: how it is made, and the worker process that holds the reward there."""
