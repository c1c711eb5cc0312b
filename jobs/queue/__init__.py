"""The region's Redis: claims, turns of hosts, shared fetches, breakers, retries, the outbox, the reaper."""
