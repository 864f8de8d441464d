"""Real clients, unmodified, against the gateway: `make clients` installs them into a folder of their own, drives them,
and prints client × version × scenario × result."""
