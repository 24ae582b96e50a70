"""The layer between the socket and the routes: API keys, and limits for slow clients."""
