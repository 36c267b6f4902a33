"""Losses, and the state that a training goes on from."""
