"""A site of sample pages on this machine. We made them in the shape of real ones; they are slow or fail on request."""
