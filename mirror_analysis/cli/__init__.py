"""The command line, `mirror`."""

from mirror_analysis.cli.app import main

__all__ = ["main"]
