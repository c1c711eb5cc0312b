"""A region's worker processes on this host, and how many they are."""
