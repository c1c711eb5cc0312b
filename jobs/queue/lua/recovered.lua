-- Closes a host's breaker: a fetch brought an answer. Returns 1 if it was open.
-- args: name
-- uses: hosts
-- constants: HOST, OPEN
-- flags: allow-oom

local host, key = look(name), HOST .. name
if host.opened > 0 and not host.is_tried then return 0 end
redis.call("HDEL", key, "fails", "opened", "tried", "type", "why")
if redis.call("ZREM", OPEN, name) == 0 then return 0 end
local _, every = limit_of(name, "")
hold(name, host, exact_ms + math.max(every, host.delay))
return 1
