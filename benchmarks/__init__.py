"""Measurements behind the claims of the documentation: `make bench`, never part of the tests."""
