"""The search for the highest load under which an arm still answers in time."""
