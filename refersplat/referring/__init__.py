"""Second stage: trains the referring field on sentences and masks."""
