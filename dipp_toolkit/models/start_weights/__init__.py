"""Start weights from elsewhere than a pipeline's own folder: where they lie, and what they are converted into once."""
