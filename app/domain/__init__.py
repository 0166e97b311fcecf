"""The words of the product: mqURI, message, link, errors. Standard library only."""
