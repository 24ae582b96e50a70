"""The comparison of variants under load: an HTTP client that knows nothing of the service but its routes."""
