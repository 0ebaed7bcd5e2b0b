"""Terms of the objective: each returns a value and a gradient on the generated sample."""
