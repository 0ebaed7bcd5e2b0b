"""What rewards share: checked inputs and scores, preprocessing, weights, and rewards that live elsewhere."""
