-- Notes the time between two fetches that a host asks for.
-- args: name, ms
-- uses: hosts
-- constants: HOST
-- flags: allow-oom

local host = look(name)
redis.call("HSET", HOST .. name, "delay", tonumber(ms))
hold(name, host, math.max(host.next, exact_ms + ms))
