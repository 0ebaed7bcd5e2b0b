"""Several generators side by side: benchmarks, votes, leaderboards, ablations and acceptance tests."""
