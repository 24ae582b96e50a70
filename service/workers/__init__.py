"""Workers and their queues, which replace LitServe's: batches over a socket, bounded queues, supervision."""
