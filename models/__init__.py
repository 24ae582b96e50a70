"""The network, its precisions, and how they are measured. Contains no HTTP and no metrics."""
