"""The HTTP service: every precision of one network behind one port."""

__version__ = "0.1.0"
