-- Registers a worker process. Sets a lease at once, so that a process that dies before its first claim is found like
-- any other.
-- `record`: the other fields of its record, and their values. Returns 0 if a living process that was born at another
-- time has the name. A process whose reply was lost calls this again, and finds itself registered.
-- keys: worker, workers, queue_workers, lease, living
-- args: name, birth, record...
-- constants: WORKER_TTL_SECONDS, LEASE_MS
-- flags: allow-oom

local known, death = unpack(redis.call("HMGET", worker, "birth", "death"))
if known and not death and known ~= birth then return 0 end
redis.call("DEL", worker)
redis.call("HSET", worker, "birth", birth, unpack(record))
redis.call("SADD", workers, worker)
redis.call("SADD", queue_workers, worker)
redis.call("EXPIRE", worker, WORKER_TTL_SECONDS)
redis.call("SET", lease, name, "PX", LEASE_MS)
redis.call("ZADD", living, now_ms, name)
return 1
