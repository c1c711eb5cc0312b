-- Turns a request from accepting into accepted. Returns 1, or 0 when its lease is over, `by_ms` has come or it is not accepting.
-- keys: ledger, accepting
-- args: request, by_ms
-- uses: now, webhook
-- flags: allow-oom

local now = now_ms()
local state, lease_ends, webhook, completed, total = unpack(redis.call("HMGET", ledger, "state", "lease", "webhook", "completed", "total"))
if state ~= "accepting" or tonumber(lease_ends) <= now or tonumber(by_ms) <= now then return 0 end
redis.call("HSET", ledger, "state", "accepted", "accepted", now)
redis.call("ZREM", accepting, request)
if webhook and completed == total then make_due(webhook, request, ledger, now) end  -- else the end of its last task does
return 1
