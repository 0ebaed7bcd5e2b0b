"""What `dipp reward` does, a module for each of its commands."""
