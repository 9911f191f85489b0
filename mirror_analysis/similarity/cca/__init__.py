"""Canonical correlations: their mean, mean square, weighted, truncated and shrunk forms."""
