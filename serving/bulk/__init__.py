"""Scoring whole token tables where they lie, without a server: on one machine or on Ray."""
