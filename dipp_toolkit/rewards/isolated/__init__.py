"""Rewards in environments of their own on this machine, each in a process."""
