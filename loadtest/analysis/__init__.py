"""What the raw times and answers say: numbers, intervals, verdicts, validity."""
