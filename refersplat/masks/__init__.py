"""Masks a scene's photos from sentences, by pretrained models that find and outline objects."""
