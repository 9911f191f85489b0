"""Whether the same samples are near one another in both representations."""
