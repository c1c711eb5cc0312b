-- Ends executions everywhere, and puts the outcomes of their tasks into the region's outbox. Each ending is a row as in
-- kept.lua.
-- Returns for each the id of its entry in the outbox, or "" if the execution was no longer one: then nothing is done.
-- keys: wip, finished, failed, worker, held, outbox, outbox_bytes, counters, queue, urgent, suspects, scheduled
-- args: name, endings (done)
-- rows: done (..ending, task, execution)
-- uses: kept, release, conclude
-- flags: allow-oom

local answer, worked = {}, 0
for number, done in ipairs(endings) do
  local began = release(done.task, done.execution)
  if began then
    worked = worked + math.max(0, tonumber(now) - tonumber(began))
    answer[number] = conclude(done.task, done.execution, name, began, done)
  else
    answer[number] = ""
  end
end
account()
if frames_bytes > 0 and redis.call("EXISTS", worker) == 1 then
  if sums.succeeded > 0 then redis.call("HINCRBY", worker, "successful_job_count", sums.succeeded) end
  if sums.failed > 0 then redis.call("HINCRBY", worker, "failed_job_count", sums.failed) end
  redis.call("HINCRBYFLOAT", worker, "total_working_time", string.format("%.6f", worked))
end
return answer
