"""What a run keeps on disk: its folder, its checkpoints, and what it was started with."""
