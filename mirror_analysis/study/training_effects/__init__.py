"""Studies that train models under conditions and say what each changes."""
