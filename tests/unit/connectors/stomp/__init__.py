"""Tests of the STOMP connector's pure parts."""
