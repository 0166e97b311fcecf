"""Tests of what the gateway is shipped in."""
