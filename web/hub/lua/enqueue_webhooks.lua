-- Makes an RQ job for each webhook that is due, unless it waits in the queue already. Returns how many it enqueued.
-- A webhook is looked at again after `look_ms`: its job may get lost. `stamp`: the time as RQ writes it. Of a message: `body` is ""
-- where it was made before.
-- keys: queue, queues, scheduled, finished, failed
-- args: look_ms, origin, stamp, messages (message)
-- rows: message (request, body, data, description)
-- uses: now
-- constants: WEBHOOKS, WEBHOOK, ENDED_SUFFIX, JOB
-- flags: allow-oom

local now, enqueued, waiting = now_ms(), 0, redis.call("LLEN", queue)
for _, message in ipairs(messages) do
  local webhook, job = WEBHOOK .. message.request, JOB .. message.request
  if redis.call("HGET", webhook, "state") == "due" then  -- it may have been refused meanwhile
    if message.body ~= "" then
      redis.call("HSET", webhook, "body", message.body, "made", 1)
      redis.call("DEL", webhook .. ENDED_SUFFIX)
    end
    redis.call("ZADD", WEBHOOKS, now + look_ms, message.request)
    if waiting == 0 or redis.call("HGET", job, "status") ~= "queued" then
      redis.call("HSET", job, "created_at", stamp, "enqueued_at", stamp, "data", message.data, "origin", origin,
        "description", message.description, "status", "queued", "timeout", 180)
      redis.call("PEXPIREAT", job, redis.call("PEXPIRETIME", webhook))
      redis.call("RPUSH", queue, message.request)
      redis.call("SADD", queues, queue)
      for _, registry in ipairs({scheduled, finished, failed}) do redis.call("ZREM", registry, message.request) end
      enqueued = enqueued + 1
    end
  end
end
return enqueued
