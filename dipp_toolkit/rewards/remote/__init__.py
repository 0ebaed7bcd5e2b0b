"""Rewards behind HTTP: the client, the server, and the messages between them, which a worker process speaks too."""
