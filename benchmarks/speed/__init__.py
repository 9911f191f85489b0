"""What `benchmarks/similarity.py` is made of; nothing here is part of the package."""
