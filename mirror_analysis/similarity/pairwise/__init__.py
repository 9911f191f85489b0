"""Measures that are the cosine of two matrices over pairs of samples: one engine for all."""
