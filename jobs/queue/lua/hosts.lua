-- What a region's Redis knows about hosts. A script looks each host up once.
-- `most` fetches of a host may run at once, with `every` ms between two of them.
-- constants: HOSTS, LIMITS, AT_ONCE_DEFAULT, HOST, TURNS, LINE, HOST_TTL_MS

local hosts, limits = {}, {}
local is_waited_for = redis.call("EXISTS", HOSTS) == 1  -- any host

-- How many fetches of a host may run at once, and how many ms lie between two: the strictest of its sources and this one.
local function limit_of(name, source)
  local key = name .. " " .. source
  if not limits[key] then
    local most, every = nil, 0
    for _, text in ipairs(redis.call("HMGET", LIMITS, name, source)) do
      local at_once, between = (text or ""):match("^(%d+) (.+)$")
      if at_once then most, every = math.min(most or math.huge, tonumber(at_once)), math.max(every, tonumber(between)) end
    end
    limits[key] = {most or AT_ONCE_DEFAULT, every}
  end
  return limits[key][1], limits[key][2]
end

local function look(name)
  if not hosts[name] then
    local next, mean, swept, delay, opened, tried, fails =
      unpack(redis.call("HMGET", HOST .. name, "next", "mean", "swept", "delay", "opened", "tried", "fails"))
    hosts[name] = {
      next = tonumber(next or "") or 0, mean = tonumber(mean or "") or 0, swept = tonumber(swept or "") or 0,
      delay = tonumber(delay or "") or 0, opened = tonumber(opened or "") or 0, is_tried = tried == "1",
      fails = tonumber(fails or "") or 0,
      busy = redis.call("ZCARD", TURNS .. name), waiting = is_waited_for and redis.call("ZCARD", LINE .. name) or 0,
    }
  end
  return hosts[name]
end

-- The next fetch of a host begins no sooner.
local function hold(name, host, next)
  host.next = next
  redis.call("HSET", HOST .. name, "next", string.format("%.3f", next))
  redis.call("PEXPIRE", HOST .. name, HOST_TTL_MS)
  redis.call("ZADD", HOSTS, "XX", math.ceil(next), name)
end

