-- Replaces what sources and hosts allow: "AT_ONCE MS_BETWEEN" for each.
-- args: limits (limit)
-- rows: limit (name, allows)
-- constants: LIMITS
-- flags: allow-oom

redis.call("DEL", LIMITS)
for _, limit in ipairs(limits) do redis.call("HSET", LIMITS, limit.name, limit.allows) end
