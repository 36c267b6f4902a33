"""The network, its parts and its weights; nothing here knows training."""
