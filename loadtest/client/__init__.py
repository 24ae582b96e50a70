"""The client of a service: users, images, `/variants` and `/metrics`."""
