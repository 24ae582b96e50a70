"""What talks to a service: users, images, `/variants` and `/metrics`."""
