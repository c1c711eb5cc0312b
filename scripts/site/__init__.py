"""A site of sample pages on this machine, made by us in the shape of the real ones; slow or failing on request."""
