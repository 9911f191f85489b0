"""Representational dissimilarity matrices and their comparison."""
