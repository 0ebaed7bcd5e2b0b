"""`dipp plan`: what a run will need, before a byte is downloaded."""
