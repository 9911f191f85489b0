"""Encoders of pictures, clips and sentences in the format of transformers."""
