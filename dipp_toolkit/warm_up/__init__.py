"""What the assistant knows before the generator's first update: where it starts, and how long it is warmed up."""
