"""What an operator can set: the settings, and where they come from."""
