"""What stands between the socket and the routes: keys, and limits for slow clients."""
