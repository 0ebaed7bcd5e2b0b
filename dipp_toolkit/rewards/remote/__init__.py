"""Rewards behind HTTP: the server, the client and what they send each other."""
