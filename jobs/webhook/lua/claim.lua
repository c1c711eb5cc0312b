-- Takes jobs from the queue, and begins a call of each one's webhook. Nobody else calls it until the lease is over.
-- Returns for each a row. `nonce` identifies the calls of this claim; `attempt` counts from the last resend on.
-- It looks at LOOKS_MAX jobs at most: many may be left of webhooks that have expired, and the hub answers nobody meanwhile.
-- keys: queue, wip, senders
-- args: name, count, lease_ms, nonce, sender_ms, stamp
-- rows: claimed (request, tenant, url, secret, body, attempt)
-- uses: now
-- constants: WEBHOOKS, WEBHOOK, JOB, FAR_SECONDS, LOOKS_MAX
-- flags: allow-oom

local now, found = now_ms(), {}
redis.call("ZADD", senders, now, name)
redis.call("ZREMRANGEBYSCORE", senders, "-inf", now - sender_ms)
count = tonumber(count)
for _ = 1, LOOKS_MAX do
  local request = #found < count and redis.call("LPOP", queue)
  if not request then break end
  local job, webhook = JOB .. request, WEBHOOK .. request
  local state, tenant, url, secret, body, before, attempts, since =
    unpack(redis.call("HMGET", webhook, "state", "tenant", "url", "secret", "body", "call", "attempts", "since"))
  if before then redis.call("ZREM", wip, request .. ":" .. before) end  -- of a process that is gone
  if state == "due" and body and redis.call("HGET", job, "status") == "queued" then
    redis.call("HSET", webhook, "call", nonce)
    redis.call("ZADD", WEBHOOKS, now + lease_ms, request)
    redis.call("HSET", job, "status", "started", "started_at", stamp, "worker_name", name)
    redis.call("ZADD", wip, math.floor(now / 1000) + FAR_SECONDS, request .. ":" .. nonce)
    local attempt = attempts + 1 - (since or 0)
    found[#found + 1] = claimed_row()
  end
end
return found
