"""What LitServe lacks: a transport without a manager process, batching, bounded queues, supervision."""
