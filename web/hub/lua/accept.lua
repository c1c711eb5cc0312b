-- Turns a request from accepting into accepted. Returns 1, or 0 when its lease is over or it is not accepting.
-- keys: ledger, accepting
-- args: request
-- uses: now
-- flags: allow-oom

local now = now_ms()
local state, lease_ends = unpack(redis.call("HMGET", ledger, "state", "lease"))
if state ~= "accepting" or tonumber(lease_ends) <= now then return 0 end
redis.call("HSET", ledger, "state", "accepted", "accepted", now)
redis.call("ZREM", accepting, request)
return 1
