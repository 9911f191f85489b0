"""Trajectories of actions or states, warped on one another and set against features."""
