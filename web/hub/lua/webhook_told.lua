-- What may be shown of a webhook: all but its secret.

-- Appends names, each after "webhook.", and values to a list; nothing for one that is not known any more.
local function tell_webhook(webhook, list)
  local names = {"url", "state", "attempts", "sent", "status", "error", "next"}
  local values = redis.call("HMGET", webhook, unpack(names))
  if not values[1] then return end
  for number, name in ipairs(names) do
    list[#list + 1] = "webhook." .. name
    list[#list + 1] = values[number] or ""
  end
end
