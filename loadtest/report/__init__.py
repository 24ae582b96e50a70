"""The report: JSON is the source, Markdown and HTML are made from it."""
