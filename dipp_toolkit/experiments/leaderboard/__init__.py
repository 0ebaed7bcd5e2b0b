"""Leaderboards: rows of any number of benches on one page, with what makes them comparable and what does not."""
