"""Teaching a few-step generator a folder of pictures: an adapter on its reference, then distillation towards that."""
