"""What people prefer: votes on pairs of images, kept and exchanged, and rewards that are fitted to them."""
