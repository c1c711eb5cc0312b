-- Counts a failed fetch of a host, and opens its breaker after `failures_max` in a row, for `share` (0.5 to 1) of a
-- time that doubles with each failed try from `first_ms` to `max_ms`, and for `asked_ms` at least. A fetch that began
-- before the breaker opened says nothing new.
-- Returns the ms for which it is open, 0 if it is not.
-- args: name, kind, why, failures_max, first_ms, max_ms, share, asked_ms
-- uses: hosts
-- constants: HOST, HOST_TTL_MS, OPEN
-- flags: allow-oom

local host, key = look(name), HOST .. name
if host.opened > 0 and not host.is_tried then return 0 end
local fails = redis.call("HINCRBY", key, "fails", 1)
redis.call("PEXPIRE", key, HOST_TTL_MS)
if host.opened == 0 and fails < tonumber(failures_max) then return 0 end
local ms = math.ceil(share * math.min(max_ms, first_ms * 2 ^ math.min(host.opened, 30)))
redis.call("HSET", key, "opened", host.opened + 1, "tried", "", "type", kind, "why", why, "fails", fails)
ms = math.max(ms, tonumber(asked_ms))
hold(name, host, host.is_tried and exact_ms + ms or math.max(host.next, exact_ms + ms))  -- a try's own wait is over
redis.call("ZREMRANGEBYSCORE", OPEN, "-inf", now_ms)  -- hosts that nobody asked for since, and that are forgotten
redis.call("ZADD", OPEN, now_ms + HOST_TTL_MS, name)
return ms
