-- Puts executions back to the front of the queue.
-- needs: wip, held, queue, urgent, suspects
-- uses: place, release
-- constants: JOB, JOB_DEATHS

-- Whether the member, TASK:EXECUTION, still was an execution.
local function requeue(member)
  local id, execution = member:match("^(.*):([^:]*)$")
  if not id or not release(id, execution) then
    redis.call("SREM", held, member)
    return false
  end
  local job = JOB .. id
  local status, deaths = unpack(redis.call("HMGET", job, "status", JOB_DEATHS))
  if status then
    redis.call("HSET", job, "status", "queued", "worker_name", "", "started_at", "")
    place(id, deaths, "LPUSH")
  end
  return true
end

