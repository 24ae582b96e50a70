"""Judging variants against each other: statistics, corruptions, timed batches, reports (see `models.evaluate`)."""
