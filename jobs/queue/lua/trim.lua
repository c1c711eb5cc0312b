-- Does what RQ's own clean-ups would do besides failing jobs, and trims RQ's registry of canceled jobs, which RQ never
-- does. Forgets answers that no task asked for in CACHED_TTL_MS.
-- keys: finished, failed, canceled
-- args: most
-- constants: JOB, KEEP_MS, CACHED, CACHED_TTL_MS, CACHED_BYTES, CACHE, CACHED_EACH_BYTES
-- flags: allow-oom

redis.call("ZREMRANGEBYSCORE", finished, "-inf", seconds)
redis.call("ZREMRANGEBYSCORE", failed, "-inf", seconds)
for _, id in ipairs(redis.call("ZRANGE", canceled, "-inf", seconds - KEEP_MS / 1000, "BYSCORE", "LIMIT", 0, most)) do
  redis.call("ZREM", canceled, id)
  if redis.call("TTL", JOB .. id) == -1 then redis.call("PEXPIRE", JOB .. id, KEEP_MS) end
end
for _, key in ipairs(redis.call("ZRANGE", CACHED, "-inf", now_ms - CACHED_TTL_MS, "BYSCORE", "LIMIT", 0, most)) do
  redis.call("ZREM", CACHED, key)
  redis.call("DECRBY", CACHED_BYTES, redis.call("HSTRLEN", CACHE .. key, "frame") + CACHED_EACH_BYTES)
  redis.call("DEL", CACHE .. key)
end
