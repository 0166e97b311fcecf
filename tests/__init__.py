"""Tests of mq-gateway: unit, contract, integration, end-to-end and fault tests, with their own tools."""
