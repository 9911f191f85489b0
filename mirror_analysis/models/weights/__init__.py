"""Weights as dictionaries of tensors: read, put into networks, drawn anew."""
