-- Takes a lease, or renews it. Returns 1, or 0 where somebody else has it.
-- keys: lease
-- args: who, lease_ms
-- flags: allow-oom

local holder = redis.call("GET", lease)
if holder and holder ~= who then return 0 end
redis.call("SET", lease, who, "PX", lease_ms)
return 1
