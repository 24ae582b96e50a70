"""The parts of `models.evaluate`: statistics, corruptions, timed batches, reports."""
