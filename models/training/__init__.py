"""The parts of `models.train`: recipe, augmentation, one run, its state on disk, the loop, the card of the result."""
