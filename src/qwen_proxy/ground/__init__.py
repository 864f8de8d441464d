"""What every row stands on: errors, secrets and server-sent events. Pure."""
