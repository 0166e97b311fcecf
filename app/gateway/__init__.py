"""The use cases in domain words: publish, open a stream, take part as producer or consumer. No HTTP here."""
