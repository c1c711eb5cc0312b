-- Takes finished requests that nobody archives. Returns them; they come again after the lease.
-- keys: archive
-- args: lease_ms, most
-- uses: now
-- flags: allow-oom

local now = now_ms()
local due = redis.call("ZRANGEBYSCORE", archive, "-inf", now, "LIMIT", 0, most)
for _, request in ipairs(due) do redis.call("ZADD", archive, now + lease_ms, request) end
return due
