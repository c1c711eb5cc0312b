-- What is due when a request has ended and is accepted, whichever comes last.
-- uses: now
-- constants: WEBHOOKS, WEBHOOKS_ENDED, ENDED_SUFFIX, TAKEN_BACK_MS

-- Makes a webhook due once. Not before its request can't be taken back any more (a gateway may have answered 503 to it). The ledger
-- is copied, since it expires, and the call may be made much later.
local function make_due(webhook, request, ledger, accepted)
  if redis.call("HGET", webhook, "state") ~= "pending" then return end
  local now, copy = now_ms(), webhook .. ENDED_SUFFIX
  local at = math.max(now, accepted + TAKEN_BACK_MS)
  redis.call("HSET", webhook, "state", "due", "ended", now, "next", at)
  redis.call("COPY", ledger, copy, "REPLACE")
  redis.call("PEXPIREAT", copy, redis.call("PEXPIRETIME", webhook))
  redis.call("ZADD", WEBHOOKS, at, request)
  redis.call("ZADD", WEBHOOKS_ENDED, now, request)
end

-- Forgets the webhook of a request that is refused after all.
local function forget_webhook(webhook, request)
  redis.call("DEL", webhook, webhook .. ENDED_SUFFIX)
  redis.call("ZREM", WEBHOOKS, request)
  redis.call("ZREM", WEBHOOKS_ENDED, request)
end
