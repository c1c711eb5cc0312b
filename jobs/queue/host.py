"""What a region's Redis knows of hosts, as Lua: how many fetches of one run at once, how fast they follow each other, who waits.

    claim ── take ──> a lease in nf:turns:{host}, and the ms of the next fetch moves on
       └─ none ── wait ──> nf:line:{host} and RQ's scheduled registry, or refused at once
    a release (jobs.queue.script.leave), or the clock (jobs.queue.turn.Caller) ── call ──> the next in line go to the queue, with a lease

The rate is GCRA without a burst (ITU-T I.371): two fetches are never nearer than it says. The line is start-time fair
queueing (Goyal, Vin, Cheng, 1996): each task stands in a round, and those of one request in rounds that follow each other.
"""

from typing import Final

# `call` needs `place` (jobs.queue.finish.PLACE), and `call` and `wait` need `scheduled`. What a script knows of hosts is looked up once.
HOSTS: Final = """
local hosts, limits, has_waiting = {}, {}, false
local is_waited_for = redis.call("EXISTS", "$hosts") == 1  -- any host

-- How many may fetch a host at once, and how many ms lie between two: the strictest of its sources and this one.
local function limit_of(name, source)
  local key = name .. " " .. source
  if not limits[key] then
    local most, every = nil, 0
    for _, text in ipairs(redis.call("HMGET", "$limits", name, source)) do
      local at_once, between = (text or ""):match("^(%d+) (.+)$$")
      if at_once then most, every = math.min(most or math.huge, tonumber(at_once)), math.max(every, tonumber(between)) end
    end
    limits[key] = {most or $most_default, every}
  end
  return limits[key][1], limits[key][2]
end

local function look(name)
  if not hosts[name] then
    local state = redis.call("HMGET", "$host" .. name, "next", "mean", "swept", "delay", "opened", "tried", "fails")
    hosts[name] = {
      next = tonumber(state[1] or "") or 0, mean = tonumber(state[2] or "") or 0, swept = tonumber(state[3] or "") or 0,
      delay = tonumber(state[4] or "") or 0, opened = tonumber(state[5] or "") or 0, is_tried = state[6] == "1",
      fails = tonumber(state[7] or "") or 0,
      busy = redis.call("ZCARD", "$turns" .. name), waiting = is_waited_for and redis.call("ZCARD", "$line" .. name) or 0,
    }
  end
  return hosts[name]
end

-- The next fetch of a host begins no sooner.
local function hold(name, host, next)
  host.next = next
  redis.call("HSET", "$host" .. name, "next", string.format("%.3f", next))
  redis.call("PEXPIRE", "$host" .. name, $host_ttl)
  redis.call("ZADD", "$hosts", "XX", math.ceil(next), name)
end

-- Takes a turn for a task: whether there was one. Who was called has its lease.
local function take(name, host, most, every, id, is_called)
  if host.next > exact_ms then return false end
  if is_called and host.busy > most or not is_called and (host.busy >= most or host.waiting > 0) then return false end
  redis.call("ZADD", "$turns" .. name, now_ms, id)
  if is_called then has_waiting = true else host.busy = host.busy + 1 end
  every = math.max(every, host.delay)
  if host.opened > 0 then
    host.is_tried, every = true, math.max(every, $try_ms)  -- jobs.queue.breaker: nobody else before it ends
    redis.call("HSET", "$host" .. name, "tried", 1)
  end
  if every > 0 then hold(name, host, exact_ms + every) end
  return true
end

-- The round in which a request's next task stands.
local function next_round(name, request)
  local served = tonumber(redis.call("ZSCORE", "$rounds" .. name, "") or 0)
  return math.max(served, tonumber(redis.call("ZSCORE", "$rounds" .. name, request) or 0)) + 1, served
end

-- When a round's turn would come, after so many others.
local function turn_at(host, most, every, ahead)
  local by_rate = math.max(exact_ms, host.next) + ahead * math.max(every, host.delay)
  local by_mean = exact_ms + math.max(0, ahead + 1 + host.busy - most) * host.mean / most
  return math.max(by_rate, by_mean)
end

-- Puts a task into a host's line, which the caller marks in its record; or gives the ms after which its turn would be.
local function wait(name, host, most, every, id, request, deadline, is_called)
  local line, rounds = "$line" .. name, "$rounds" .. name
  if is_called then
    redis.call("ZREM", "$turns" .. name, id)
    host.busy = host.busy - 1
  end
  local round, served = next_round(name, request)
  if is_called then round = served end
  local at = turn_at(host, most, every, redis.call("ZCOUNT", line, "-inf", round))
  if host.waiting >= $waiting_max or (deadline and at > deadline - $room) then
    return math.max(1, math.ceil(at - exact_ms))
  end
  redis.call("ZADD", line, round, id)
  redis.call("ZADD", rounds, round, request)
  redis.call("ZADD", "$hosts", "LT", host.busy < most and math.ceil(math.max(exact_ms, host.next)) or now_ms + 1000, name)
  redis.call("ZADD", scheduled, ((deadline or now_ms + 300000) - $room) / 1000, id)
  host.waiting = host.waiting + 1
  has_waiting = true
  return nil
end

-- Lets those of a line hear at once that their host is closed until after their deadlines.
local function give_up(name, host)
  if now_ms - host.swept < 1000 then return end
  host.swept = now_ms
  redis.call("HSET", "$host" .. name, "swept", now_ms)
  for _, id in ipairs(redis.call("ZRANGE", "$line" .. name, 0, -1)) do
    local fields = redis.call("HMGET", "$job" .. id, "status", "$deadline", "$deaths")
    if fields[1] == "scheduled" and fields[2] and host.next > tonumber(fields[2]) - $room then
      redis.call("ZREM", "$line" .. name, id)
      redis.call("ZREM", scheduled, id)
      redis.call("HSET", "$job" .. id, "status", "queued")
      place(id, fields[3], "RPUSH")
      host.waiting = host.waiting - 1
    end
  end
end

-- Drops turns whose tasks neither run nor were called: an operator deleted them.
local function sweep(name, host)
  if now_ms - host.swept < 1000 then return end
  host.swept = now_ms
  redis.call("HSET", "$host" .. name, "swept", now_ms)
  for _, id in ipairs(redis.call("ZRANGE", "$turns" .. name, 0, -1)) do
    local status = redis.call("HGET", "$job" .. id, "status")
    if status ~= "started" and status ~= "queued" then host.busy = host.busy - redis.call("ZREM", "$turns" .. name, id) end
  end
end

-- Calls the next ones of a host's line to the front of the queue, as many as there are turns. Of a host with a rate just
-- one: its token is taken when it is claimed, which may be later.
local function call(name)
  local host, line, rounds = look(name), "$line" .. name, "$rounds" .. name
  local again = now_ms + 1000
  for _ = 1, 100 do
    local first = redis.call("ZRANGE", line, 0, 0, "WITHSCORES")
    if #first == 0 then
      redis.call("DEL", rounds)
      redis.call("ZREM", "$hosts", name)
      return
    end
    local id, round = first[1], first[2]
    local job = "$job" .. id
    local fields = redis.call("HMGET", job, "status", "$source", "$deaths")
    local most, every = limit_of(name, fields[2] or "")
    if host.next > exact_ms then
      again = math.min(again, math.ceil(host.next))
      if host.next > exact_ms + 1000 then give_up(name, host) end
      break
    end
    if fields[1] ~= "scheduled" then
      redis.call("ZREM", line, id)
      host.waiting = host.waiting - 1
    else
      if host.busy >= most then sweep(name, host) end
      local is_paced = every > 0 or host.delay > 0 or host.opened > 0
      if host.busy >= most or (is_paced and redis.call("ZCOUNT", "$turns" .. name, "-inf", 0) > 0) then break end
      redis.call("ZREM", line, id)
      redis.call("ZADD", rounds, round, "")
      redis.call("ZREMRANGEBYSCORE", rounds, "-inf", "(" .. round)
      redis.call("ZADD", "$turns" .. name, -now_ms, id)
      host.busy, host.waiting = host.busy + 1, host.waiting - 1
      redis.call("ZREM", scheduled, id)
      redis.call("HSET", job, "status", "queued", "enqueued_at", iso())
      place(id, fields[3], "LPUSH")
    end
  end
  redis.call("ZADD", "$hosts", again, name)
end

local function call_due()
  for _, name in ipairs(redis.call("ZRANGE", "$hosts", "-inf", now_ms, "BYSCORE", "LIMIT", 0, 20)) do call(name) end
end

-- In how many ms somebody may be called again; -1 where nobody waits.
local function next_call()
  local first = redis.call("ZRANGE", "$hosts", 0, 0, "WITHSCORES")
  return first[2] and math.max(0, first[2] - now_ms) or -1
end
"""
