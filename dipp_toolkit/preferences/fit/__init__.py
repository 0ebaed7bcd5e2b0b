"""A reward fitted to votes by TRL's `RewardTrainer`: a frozen or adapted image-text backbone and a head on it."""
