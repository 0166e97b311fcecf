"""A client of a running gateway, for the command line: HTTP only, nothing of the server is imported."""
