-- Moves jobs whose time has come to the queue, looks after shared fetches, and ends jobs that could not be tried again
-- in time, with their kept outcomes. A task that runs past its deadline ends by itself, or is given back and looked at again.
-- Urgent jobs go to the normal queue when no process is there for them.
-- One that was ended here may still stand in the queue: claims skip jobs that are not queued.
-- Returns a row for each task that ended.
-- keys: queue, urgent, suspects, scheduled, finished, failed, outbox, outbox_bytes, counters, urgent_lease
-- uses: kept, past, leave, conclude
-- rows: ended (entry, task, request, state, finished_ms, expires_ms, size_bytes, frame, trail)
-- constants: DUE_MAX, JOB, JOB_FRONT, JOB_DEATHS, JOB_HOST, JOB_SINCE, JOB_JOINED, JOB_KEPT, JOB_PAST, RETRIED
-- flags: allow-oom

for _, id in ipairs(redis.call("ZRANGE", scheduled, "-inf", now, "BYSCORE", "LIMIT", 0, DUE_MAX)) do
  redis.call("ZREM", scheduled, id)
  local job = JOB .. id
  local status, front, deaths, host, since, joined =
    unpack(redis.call("HMGET", job, "status", JOB_FRONT, JOB_DEATHS, JOB_HOST, JOB_SINCE, JOB_JOINED))
  if status == "scheduled" then
    if (since or "") ~= "" then forget(host, id) end  -- no turn came: the claim says so
    redis.call("HSET", job, "status", "queued", "enqueued_at", stamp, joined and JOB_JOINED or "status", joined and "" or "queued")
    place(id, deaths, front == "1" and "LPUSH" or "RPUSH")
  end
end
if redis.call("EXISTS", urgent_lease) == 0 then overflow() end
sharing().look_after()
local answer = {}
for _, id in ipairs(redis.call("ZRANGE", RETRIED, "-inf", now_ms, "BYSCORE", "LIMIT", 0, DUE_MAX)) do
  local status, kept, host, since = unpack(redis.call("HMGET", JOB .. id, "status", JOB_KEPT, JOB_HOST, JOB_SINCE))
  if status == "started" then
    redis.call("ZADD", RETRIED, now_ms + 1000, id)
  else
    redis.call("ZREM", RETRIED, id)
    if (status == "queued" or status == "scheduled") and kept then
      redis.call("ZREM", scheduled, id)
      if (since or "") ~= "" then forget(host, id) end
      local execution, worker, began, ending = unpack_kept(kept)
      ending.trail = with_later(ending.trail, redis.call("HGET", JOB .. id, JOB_PAST))
      local entry, task, request, state = conclude(id, execution, worker, began, ending), id, ending.request, ending.state
      local finished_ms, expires_ms, size_bytes = ending.finished_ms, ending.expires_ms, ending.size_bytes
      local frame, trail = ending.frame, ending.trail
      answer[#answer + 1] = ended_row()
    end
  end
end
account()
return answer
