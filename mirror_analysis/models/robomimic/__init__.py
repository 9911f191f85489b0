"""Behavioural cloning of robomimic."""
