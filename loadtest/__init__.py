"""The comparison of variants under load: a client that knows the service only by its HTTP routes and metrics."""
