"""What a generator is trained for: terms, how they are mixed, and estimators where a gradient is missing."""
