"""Several processes on one port: a supervisor that keeps them running, and workers that serve."""
