"""The Open Inference Protocol v2 over REST: documents, tensors, statistics. The routes are in service.routes.v2."""
