-- Returns the Redis's own time in ms, and what is added to it.
-- keys: clock
-- uses: now
-- flags: no-writes

return {now_ms(), tonumber(redis.call("GET", clock) or 0)}
