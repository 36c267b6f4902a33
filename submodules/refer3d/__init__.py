"""Shared by both models: text encoders, the parser of questions, run folders, compiled ops."""
