"""Static files: pages and the description of the API."""
