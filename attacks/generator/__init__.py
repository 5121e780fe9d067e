"""Attacks on the generator and its rows."""
