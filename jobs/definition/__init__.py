"""What a source's file says, read and checked. The gateway shares it."""
