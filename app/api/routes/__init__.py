"""The pages served by FastAPI's router: health, metrics, documentation. Nothing here is hot."""
