"""Encoders of pictures and clips in the formats of timm, open_clip and ViCLIP."""
