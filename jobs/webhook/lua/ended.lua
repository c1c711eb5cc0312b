-- Notes how a call ended. `how`: "delivered"; "failed", for good; "again", after `wait_ms`; or "put off": the call was not made.
-- Returns what the webhook is then: "delivered", "failed" or "due"; "" if the call was somebody else's by then, which a delivery may be.
-- A delivered webhook is kept as long as its request; another one for `kept_ms`, so that it can be called again.
-- keys: webhook, job, wip, finished, failed, scheduled
-- args: request, nonce, how, status, error, took_ms, wait_ms, kept_ms, stamp
-- uses: now
-- constants: WEBHOOKS
-- flags: allow-oom

local now = now_ms()
local state, call, ends, expires = unpack(redis.call("HMGET", webhook, "state", "call", "until", "expires"))
redis.call("ZREM", wip, request .. ":" .. nonce)
if not state or (call ~= nonce and how ~= "delivered") or (state ~= "due" and how ~= "delivered") then return "" end
if state == "delivered" then return state end  -- it was said before
local next_ms = now + tonumber(wait_ms)
local is_over = how == "delivered" or how == "failed" or (how == "again" and next_ms > tonumber(ends))
local found = is_over and (how == "delivered" and how or "failed") or "due"
local seconds = math.floor(now / 1000)
redis.call("HDEL", webhook, "call")
if how ~= "put off" then
  redis.call("HINCRBY", webhook, "attempts", 1)
  redis.call("HSET", webhook, "status", status, "error", error, "sent", now - took_ms)
end
if is_over then
  local until_ms = how == "delivered" and math.max(tonumber(expires), now + 3600000) or now + kept_ms
  redis.call("HSET", webhook, "state", found)
  redis.call("ZREM", WEBHOOKS, request)
  redis.call("PEXPIREAT", webhook, until_ms)
  redis.call("HSET", job, "status", found == "delivered" and "finished" or "failed", "ended_at", stamp)
  redis.call("PEXPIREAT", job, until_ms)
  local registry = found == "delivered" and finished or failed
  redis.call("ZREMRANGEBYSCORE", registry, "-inf", seconds)
  redis.call("ZADD", registry, math.floor(until_ms / 1000), request)
else
  redis.call("HSET", webhook, "next", next_ms)
  redis.call("ZADD", WEBHOOKS, next_ms, request)
  redis.call("HSET", job, "status", "scheduled")
  redis.call("ZADD", scheduled, math.floor(next_ms / 1000), request)
end
return found
