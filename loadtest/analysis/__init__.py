"""The analysis of raw times and answers: numbers, intervals, verdicts, validity."""
