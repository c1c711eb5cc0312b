-- Makes each key a stream that has the group. A key of another type is deleted. XGROUP CREATE runs on a full Redis too:
-- only reading drains it. Returns for each key what was wrong, or "".
-- args: group, streams...
-- flags: allow-oom

local wrong = {}
for i, key in ipairs(streams) do
  local kind = redis.call("TYPE", key).ok
  wrong[i] = (kind == "none" or kind == "stream") and "" or kind
  if wrong[i] ~= "" then redis.call("UNLINK", key) end
  local made = redis.pcall("XGROUP", "CREATE", key, group, "0", "MKSTREAM")
  if made.err and not string.find(made.err, "BUSYGROUP") then wrong[i] = made.err end
end
return wrong
