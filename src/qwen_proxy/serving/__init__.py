"""What every route shares of the HTTP server: authentication, errors, streams."""
