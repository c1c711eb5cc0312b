-- Takes webhooks that are due and that no job calls. No other gateway gets them until the lease is over.
-- Returns {rows, how many jobs wait, how many processes call, in how many ms the next one is due, -1 if there is none}. A row:
-- {request, when it ended, its ledger}; the ledger is empty where the message is made already.
-- `retry_ms`: for how long after the first look a call is tried. What ended more than `kept_ms` ago is not listed any more.
-- keys: queue, senders
-- args: lease_ms, most, retry_ms, kept_ms, sender_ms
-- uses: now, webhook
-- constants: WEBHOOKS, WEBHOOKS_ENDED, WEBHOOK, ENDED_SUFFIX, LEDGER, PENDING_MS
-- flags: allow-oom

local now, found = now_ms(), {}

-- Makes a webhook due whose request has ended without that: the script of an older gateway ended it.
local function look(webhook, request)
  local ledger = LEDGER .. request
  local state, accepted, completed, total = unpack(redis.call("HMGET", ledger, "state", "accepted", "completed", "total"))
  if state == "accepted" and completed == total then make_due(webhook, request, ledger, accepted)
  elseif state == "accepted" or state == "accepting" then redis.call("ZADD", WEBHOOKS, now + PENDING_MS, request)
  else redis.call("ZREM", WEBHOOKS, request) end
end

for _, request in ipairs(redis.call("ZRANGEBYSCORE", WEBHOOKS, "-inf", now, "LIMIT", 0, most)) do
  local webhook = WEBHOOK .. request
  local state, ended, is_made = unpack(redis.call("HMGET", webhook, "state", "ended", "made"))
  if state == "pending" then look(webhook, request)
  elseif state ~= "due" then redis.call("ZREM", WEBHOOKS, request)
  else
    redis.call("ZADD", WEBHOOKS, now + lease_ms, request)
    redis.call("HSETNX", webhook, "until", now + retry_ms)
    found[#found + 1] = {request, ended, is_made and {} or redis.call("HGETALL", webhook .. ENDED_SUFFIX)}
  end
end
redis.call("ZREMRANGEBYSCORE", WEBHOOKS_ENDED, "-inf", now - kept_ms)
local first = redis.call("ZRANGE", WEBHOOKS, 0, 0, "WITHSCORES")[2]
local next_ms = first and math.max(0, first - now) or -1
return {found, redis.call("LLEN", queue), redis.call("ZCOUNT", senders, now - sender_ms, "+inf"), next_ms}
