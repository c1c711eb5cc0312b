-- Ends executions, keeps their outcomes, and puts their jobs into RQ's scheduled registry for `wait_ms`. Afterwards a
-- job goes to the front of the queue if `front` is "1". `line` says how the attempt failed. If an operator deleted the
-- record there is nothing to try again, and the task ends. Returns as finish.lua, with LATER for each that is tried
-- again.
-- keys: wip, finished, failed, worker, held, outbox, outbox_bytes, counters, queue, urgent, suspects, scheduled
-- args: name, endings (retried)
-- rows: retried (..ending, task, execution, wait_ms, front, line)
-- uses: kept, release, conclude
-- constants: JOB, JOB_DEADLINE, JOB_PAST, JOB_FRONT, JOB_KEPT, RETRIED, LATER
-- flags: allow-oom

local answer = {}
for number, retried in ipairs(endings) do
  local job = JOB .. retried.task
  local began = release(retried.task, retried.execution)
  if not began then
    answer[number] = ""
  else
    local status, deadline, past = unpack(redis.call("HMGET", job, "status", JOB_DEADLINE, JOB_PAST))
    if not status then
      answer[number] = conclude(retried.task, retried.execution, name, began, retried)
    else
      redis.call("HSET", job, "status", "scheduled", "worker_name", "", "started_at", "", JOB_FRONT, retried.front,
        JOB_PAST, (past or "") .. retried.line, JOB_KEPT, pack_kept(retried.execution, name, began, retried))
      redis.call("ZADD", scheduled, string.format("%.3f", (now_ms + tonumber(retried.wait_ms)) / 1000), retried.task)
      redis.call("ZADD", RETRIED, deadline or now_ms, retried.task)
      answer[number] = LATER
    end
  end
end
account()
return answer
