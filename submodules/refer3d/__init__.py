"""What both models share: text encoders, run folders and options, the loader of compiled ops."""
