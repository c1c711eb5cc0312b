-- Keeps a dead letter, and forgets the oldest ones. Returns 1 when it is new.
-- keys: letters, times
-- args: id, letter, kept_max, ttl_ms
-- uses: now

local now = now_ms()
local function forget(ids)
  for _, old in ipairs(ids) do
    redis.call("HDEL", letters, old)
    redis.call("ZREM", times, old)
  end
end
forget(redis.call("ZRANGEBYSCORE", times, "-inf", now - ttl_ms, "LIMIT", 0, 100))
local is_new = redis.call("HSETNX", letters, id, letter)
if is_new == 1 then redis.call("ZADD", times, now, id) end
local over = redis.call("ZCARD", times) - kept_max
if over > 0 then forget(redis.call("ZRANGE", times, 0, over - 1)) end
redis.call("PEXPIRE", letters, ttl_ms)
redis.call("PEXPIRE", times, ttl_ms)
return is_new
