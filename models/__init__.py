"""The network, its precisions, and how they are measured. Knows nothing of HTTP or metrics."""
