"""The report: its types, and their forms in JSON, Markdown and HTML."""
