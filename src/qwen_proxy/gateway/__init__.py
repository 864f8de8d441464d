"""What happens to a request between a client protocol and an upstream."""
