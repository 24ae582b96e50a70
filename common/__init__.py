"""Facts and formulas that more than one package needs. Standard library only."""
