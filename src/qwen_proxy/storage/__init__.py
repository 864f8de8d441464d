"""Where accounts, settings and usage are kept."""
