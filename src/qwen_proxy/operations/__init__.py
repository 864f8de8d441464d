"""What the commands do: doctor, account checks, a quick request, recordings."""
