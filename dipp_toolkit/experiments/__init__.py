"""Several generators side by side: benchmarks, leaderboards, ablations and acceptance tests."""
