"""All that is kept, carried from one store to another in a file under a passphrase."""
