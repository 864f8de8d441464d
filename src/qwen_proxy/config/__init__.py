"""Settings: read once, checked, and handed down."""
