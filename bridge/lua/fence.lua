-- Writes a key, after which WAITAOF covers all earlier writes of the connection. When the Redis is full, batches that it has
--   taken must still be acked.
-- keys: fence
-- args: name
-- flags: allow-oom

return redis.call("SET", fence, name)
