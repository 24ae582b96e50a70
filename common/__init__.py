"""Facts and formulas that more than one package needs. Imports the standard library only."""
