-- Has a webhook called again whose request has ended, from the first attempt on. Returns 1, or 0 where there is none that has ended.
-- keys: webhook
-- args: request, retry_ms, kept_ms
-- uses: now
-- constants: WEBHOOKS, JOB
-- flags: allow-oom

local now = now_ms()
local state, attempts = unpack(redis.call("HMGET", webhook, "state", "attempts"))
if not state or state == "pending" then return 0 end
if state == "due" and redis.call("HGET", JOB .. request, "status") == "started" then return 1 end  -- it is being called
redis.call("HSET", webhook, "state", "due", "next", now, "until", now + retry_ms, "since", attempts)
redis.call("PEXPIREAT", webhook, now + retry_ms + kept_ms, "GT")
redis.call("ZADD", WEBHOOKS, now, request)
return 1
