"""Attacks on the stream of scoring requests."""
