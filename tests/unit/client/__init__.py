"""Tests of the client of a running gateway."""
