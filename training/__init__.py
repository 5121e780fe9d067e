"""Trains the classifier (PyTorch) and the generator (Keras) on tokens; knows no key."""
