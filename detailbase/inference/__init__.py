"""Inference: masks for phrases, their scores and pictures."""
