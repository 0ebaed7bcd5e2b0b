"""Votes on pairs of images: which pair is shown to whom, where the images come from, and the page that shows them."""
