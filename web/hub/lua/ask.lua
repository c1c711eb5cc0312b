-- Notes that another region is asked, too, for tasks that a region has not ended.
-- Returns for each task the message for the other region, and when its request was created, its deadline and its expiry; or false
-- if it may not be asked. `is_queued_only` "1": only for tasks that do not run. `is_again` "1": also for those that were noted
-- before, since nobody knows whether the other region was asked then. `moved`: a web.hub.takeover.Moved; `asks`: the key of
-- what asks; `open`: the key of the other region's open tasks.
-- args: region, is_queued_only, is_again, tasks (task)
-- rows: task (id, request, to, moved, ledger, asks, open)
-- uses: now

local now, answers = now_ms(), {}
for number, task in ipairs(tasks) do
  local field = "t:" .. task.id
  local state, created, deadline, expires, said =
    unpack(redis.call("HMGET", task.ledger, "state", "created", "deadline", "expires", field))
  local before, asked = string.match(said or "", "^(%l+)|(.*)$")
  local is_open = before == "queued" or (before == "running" and is_queued_only ~= "1")
  local both = region .. "," .. task.to
  local may = state == "accepted" and is_open and tonumber(deadline) > now
  local body = may and (asked == region or (is_again == "1" and asked == both)) and redis.call("HGET", task.asks, task.id)
  if body then
    if asked == region then
      redis.call("HSET", task.ledger, field, before .. "|" .. both, "m:" .. task.id, task.moved)
      redis.call("ZADD", task.open, created, task.request .. "/" .. task.id)
    end
    answers[number] = {body, created, deadline, expires}
  else answers[number] = false end
end
return answers
