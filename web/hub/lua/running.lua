-- Shows tasks as running that were queued in a region, and keeps their trails.
-- args: region, tasks (task)
-- rows: task (id, trail, ledger, trails)
-- flags: allow-oom

for _, task in ipairs(tasks) do
  local field = "t:" .. task.id
  local status, expires = unpack(redis.call("HMGET", task.ledger, field, "expires"))
  if status == "queued|" .. region then redis.call("HSET", task.ledger, field, "running|" .. region) end
  if task.trail ~= "" and (status == "queued|" .. region or status == "running|" .. region) then
    redis.call("HSET", task.trails, task.id, task.trail)
    redis.call("PEXPIREAT", task.trails, expires)
  end
end
return #tasks
