"""What `dipp plugins` does, a module for each of its commands."""
