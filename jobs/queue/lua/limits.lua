-- Replaces what sources and hosts allow: "AT_ONCE MS_BETWEEN" for each.
-- args: limits (name, limit)
-- constants: LIMITS
-- flags: allow-oom

redis.call("DEL", LIMITS)
for _, one in ipairs(limits) do redis.call("HSET", LIMITS, one.name, one.limit) end
