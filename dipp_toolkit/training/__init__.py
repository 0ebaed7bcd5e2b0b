"""The training of a generator: engine, assistant and optimisers, and the loop around them."""
