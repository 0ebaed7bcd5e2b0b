"""What can be wrong with a reward, one idea a file; `dipp_toolkit.rewards.check` runs all of it."""
