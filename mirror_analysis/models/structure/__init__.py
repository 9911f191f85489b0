"""Finds the layers of a network that nobody described."""
