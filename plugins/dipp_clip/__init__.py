"""Not in yet."""
