"""What can be wrong with a reward, one idea a file; `dipp_toolkit.rewards.checks.run` runs all of it."""
