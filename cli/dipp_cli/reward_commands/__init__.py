"""The commands of `dipp reward`, one a module; each module's `register` adds its own to the group."""
