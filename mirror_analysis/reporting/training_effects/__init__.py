"""Figures and tables of studies that train models under conditions."""
