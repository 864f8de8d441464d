"""Several processes on one port: a supervisor that keeps the accounts, and workers that serve."""
