"""Who we are upstream: accounts, what proves them, and how they are doing."""
