"""Attacks on the classifier and its answers."""
