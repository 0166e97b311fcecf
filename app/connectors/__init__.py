"""Connections to message brokers: the abstract MQConnector and its specialisations."""
