-- Shows tasks as running that were queued in a region, and keeps their trails. If several regions were asked, each has a trail.
-- args: region, tasks (task)
-- rows: task (id, trail, ledger, trails)
-- uses: asked
-- flags: allow-oom

for _, task in ipairs(tasks) do
  local field = "t:" .. task.id
  local status, expires = unpack(redis.call("HMGET", task.ledger, field, "expires"))
  local state, asked = string.match(status or "", "^(%l+)|(.*)$")
  if (state == "queued" or state == "running") and (asked == region or has((parted(asked)), region)) then
    if state == "queued" then redis.call("HSET", task.ledger, field, "running|" .. asked) end
    if task.trail ~= "" then
      redis.call("HSET", task.trails, asked == region and task.id or task.id .. "|" .. region, task.trail)
      redis.call("PEXPIREAT", task.trails, expires)
    end
  end
end
return #tasks
