-- Writes a new request as accepting, with a lease, and looks for what it may take of older answers. A full Redis
-- refuses it.
-- Returns {created, deadline, expires} in ms, then for each older answer that will do, by the end of its result: the
-- task's number from 0, the result's key and frame. Where `repeated` (the key of an Idempotency-Key, or "") has made a request
-- before, it writes nothing, and returns {0, that request, the digest of its body}. Where it would exceed a limit of its API key, of
-- which `used` ("" without one) tells what it uses, it returns {-1, the limit, its value, after how many ms to ask again}.
-- `open`: the key of the region's open tasks; `latest`: the key of the latest success of a task that asks the same; `moved`: why
-- another region than the source's is asked, or ""; `ask`: what may ask another region until the deadline, kept in `asks`, or "".
-- `webhook`: the key of the request's webhook, or ""; it is kept for `webhook_ms` after the request must have ended.
-- keys: ledger, due, accepting, asks, repeated, used, listed, webhook
-- args: request, lease_ms, deadline_ms, ttl_ms, grace_ms, tasks_json, attrs_json, gateway, is_fast, max_age_ms,
--   answer_bytes_max, digest, repeatable_ms, tenant, rate_max, open_max, bytes_max, traceparent, webhook_url,
--   webhook_secret, webhook_ms, tasks (task)
-- rows: task (id, region, open, latest, moved, ask)
-- uses: now, use
-- constants: WEBHOOKS, PENDING_MS

local now = now_ms()
local deadline, expires, lease_ends = now + deadline_ms, now + ttl_ms, now + lease_ms
if repeated ~= "" then
  local first, of = unpack(redis.call("HMGET", repeated, "request", "digest"))
  if first and first ~= request then return {0, first, of} end
end
if used ~= "" and redis.call("EXISTS", ledger) == 0 then  -- else this write is sent again, since its answer was lost
  local limits = {rate = tonumber(rate_max), open = tonumber(open_max), bytes = tonumber(bytes_max)}
  local limit, value, ms = exceeded(used, #tasks, now, limits)
  if limit then return {-1, limit, tostring(value), math.ceil(ms)} end
  redis.call("HINCRBY", used, "open", #tasks)
  redis.call("PEXPIREAT", used, expires + 60000)  -- by then nothing of it counts
  redis.call("HSET", ledger, "used", used)
end
if repeated ~= "" then
  redis.call("HSET", repeated, "request", request, "digest", digest)
  redis.call("PEXPIRE", repeated, math.max(tonumber(repeatable_ms), tonumber(ttl_ms)))
  redis.call("HSET", ledger, "repeated", repeated)
end
if tenant ~= "" then redis.call("HSET", ledger, "tenant", tenant) end
if traceparent ~= "" then redis.call("HSET", ledger, "traceparent", traceparent) end
redis.call("ZADD", listed, 0, tenant .. "/" .. request)
if webhook ~= "" then
  redis.call("HSET", ledger, "webhook", webhook)
  redis.call("HSET", webhook, "url", webhook_url, "secret", webhook_secret, "tenant", tenant, "state", "pending", "attempts", 0,
    "expires", expires)
  redis.call("PEXPIREAT", webhook, math.max(expires, deadline + grace_ms + webhook_ms))
  redis.call("ZADD", WEBHOOKS, deadline + grace_ms + PENDING_MS, request)  -- by then it is due, or somebody looks why not
end
local max_age, room, answer = tonumber(max_age_ms), tonumber(answer_bytes_max), {now, deadline, expires}
local may_move = false
redis.call("HSET", ledger, "state", "accepting", "lease", lease_ends, "created", now, "deadline", deadline,
  "expires", expires, "total", #tasks, "completed", 0, "bytes", 0, "tasks", tasks_json, "attrs", attrs_json,
  "by", gateway, "sync", is_fast)
for number, task in ipairs(tasks) do
  local member = request .. "/" .. task.id
  redis.call("HSET", ledger, "t:" .. task.id, "queued|" .. task.region, "l:" .. task.id, task.latest)
  if task.moved ~= "" then redis.call("HSET", ledger, "m:" .. task.id, task.moved) end
  if task.ask ~= "" then
    redis.call("HSET", asks, task.id, task.ask)
    may_move = true
  end
  redis.call("ZADD", due, deadline + grace_ms, member)
  redis.call("ZADD", task.open, now, member)
  local latest = max_age > 0 and redis.call("GET", task.latest)
  if latest then
    local finished, bytes, key = string.match(latest, "^(%d+) (%d+) (.+)$")
    local frame = now - finished <= max_age and tonumber(bytes) <= room and redis.call("GET", key)
    if frame then
      room = room - bytes
      for _, part in ipairs({number - 1, key, frame}) do answer[#answer + 1] = part end
    end
  end
end
if may_move then redis.call("PEXPIREAT", asks, deadline + grace_ms) end
redis.call("PEXPIREAT", ledger, expires)
redis.call("ZADD", accepting, lease_ends, request)
return answer
