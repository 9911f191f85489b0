"""What the layers of a running network give, pooled as it comes."""
