"""Our own request and events: what every client protocol and every upstream translates to and from. Pure."""
