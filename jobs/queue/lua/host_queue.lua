-- The queue of each host: tasks take turns, wait for them, and are called when there are some.
--
--     claim ── take ──> a turn in nf:turns:{host}, and the host's next fetch is later by its rate
--        └─ none ── wait ──> nf:line:{host} and RQ's scheduled registry, or refused at once
--     an end (leave.lua), or the clock (jobs.queue.turn.Caller) ── call ──> the next tasks go to the region's queue, with a turn
--
-- The rate is GCRA without a burst (ITU-T I.371): two fetches are never nearer than it says. The order is start-time
-- fair queueing (Goyal, Vin, Cheng, 1996): each task stands in a round, and the tasks of one request stand in
-- successive rounds.
-- needs: queue, urgent, suspects, scheduled
-- uses: hosts, place, iso
-- constants: TURNS, TRY_MS, HOST, ROUNDS, LINE, WAITING_MAX, ROOM_MS, HOSTS, JOB, JOB_DEADLINE, JOB_DEATHS, JOB_SOURCE,
--   KEEP_MS, HOST_TTL_MS

local has_waiting = false

-- Takes a turn for a task; returns whether there was one. A task that was called has its turn already.
local function take(name, host, most, every, id, is_called)
  if host.next > exact_ms then return false end
  if is_called and host.busy > most or not is_called and (host.busy >= most or host.waiting > 0) then return false end
  redis.call("ZADD", TURNS .. name, now_ms, id)
  if is_called then has_waiting = true else host.busy = host.busy + 1 end
  every = math.max(every, host.delay)
  if host.opened > 0 then
    host.is_tried, every = true, math.max(every, TRY_MS)  -- jobs.queue.breaker: no other fetch before this one ends
    redis.call("HSET", HOST .. name, "tried", 1)
  end
  if every > 0 then hold(name, host, exact_ms + every) end
  return true
end

-- The round in which a request's next task stands, and the one that is served.
local function next_round(name, request)
  local served = tonumber(redis.call("ZSCORE", ROUNDS .. name, "") or 0)
  return math.max(served, tonumber(redis.call("ZSCORE", ROUNDS .. name, request) or 0)) + 1, served
end

-- When a task's turn would come if that many others are ahead of it.
local function turn_at(host, most, every, ahead)
  local by_rate = math.max(exact_ms, host.next) + ahead * math.max(every, host.delay)
  local by_mean = exact_ms + math.max(0, ahead + 1 + host.busy - most) * host.mean / most
  return math.max(by_rate, by_mean)
end

-- Puts a task into a host's queue, and leaves it to the caller to mark that in the job's record. Or returns the ms
-- until its turn if that would come too late.
local function wait(name, host, most, every, id, request, deadline, is_called)
  local line, rounds = LINE .. name, ROUNDS .. name
  if is_called then
    redis.call("ZREM", TURNS .. name, id)
    host.busy = host.busy - 1
  end
  local round, served = next_round(name, request)
  if is_called then round = served end
  local at = turn_at(host, most, every, redis.call("ZCOUNT", line, "-inf", round))
  if host.waiting >= WAITING_MAX or (deadline and at > deadline - ROOM_MS) then
    return math.max(1, math.ceil(at - exact_ms))
  end
  redis.call("ZADD", line, round, id)
  redis.call("ZADD", rounds, round, request)
  redis.call("ZADD", HOSTS, "LT", host.busy < most and math.ceil(math.max(exact_ms, host.next)) or now_ms + 1000, name)
  redis.call("ZADD", scheduled, ((deadline or now_ms + KEEP_MS) - ROOM_MS) / 1000, id)
  host.waiting = host.waiting + 1
  has_waiting = true
  return nil
end

-- Sends the tasks of a host's queue to the region's queue if the host stays closed until after their deadlines: they
-- fail at once.
local function give_up(name, host)
  if now_ms - host.swept < 1000 then return end
  host.swept = now_ms
  redis.call("HSET", HOST .. name, "swept", now_ms)
  for _, id in ipairs(redis.call("ZRANGE", LINE .. name, 0, -1)) do
    local status, deadline, deaths = unpack(redis.call("HMGET", JOB .. id, "status", JOB_DEADLINE, JOB_DEATHS))
    if status == "scheduled" and deadline and host.next > tonumber(deadline) - ROOM_MS then
      redis.call("ZREM", LINE .. name, id)
      redis.call("ZREM", scheduled, id)
      redis.call("HSET", JOB .. id, "status", "queued")
      place(id, deaths, "RPUSH")
      host.waiting = host.waiting - 1
    end
  end
end

-- Drops turns whose tasks neither run nor were called: an operator deleted them.
local function sweep(name, host)
  if now_ms - host.swept < 1000 then return end
  host.swept = now_ms
  redis.call("HSET", HOST .. name, "swept", now_ms)
  redis.call("PEXPIRE", HOST .. name, HOST_TTL_MS)
  for _, id in ipairs(redis.call("ZRANGE", TURNS .. name, 0, -1)) do
    local status = redis.call("HGET", JOB .. id, "status")
    if status ~= "started" and status ~= "queued" then host.busy = host.busy - redis.call("ZREM", TURNS .. name, id) end
  end
end

-- Calls as many tasks of a host's queue to the front of the region's queue as there are turns. Of a host with a rate it
-- calls just one: the host's next fetch is fixed only when that one is claimed, which may be later.
local function call(name)
  local host, line, rounds = look(name), LINE .. name, ROUNDS .. name
  local again = now_ms + 1000
  for _ = 1, 100 do
    local id, round = unpack(redis.call("ZRANGE", line, 0, 0, "WITHSCORES"))
    if not id then
      redis.call("DEL", rounds)
      redis.call("ZREM", HOSTS, name)
      return
    end
    local job = JOB .. id
    local status, source, deaths = unpack(redis.call("HMGET", job, "status", JOB_SOURCE, JOB_DEATHS))
    local most, every = limit_of(name, source or "")
    if host.next > exact_ms then
      again = math.min(again, math.ceil(host.next))
      if host.next > exact_ms + 1000 then give_up(name, host) end
      break
    end
    if status ~= "scheduled" then
      redis.call("ZREM", line, id)
      host.waiting = host.waiting - 1
    else
      if host.busy >= most then sweep(name, host) end
      local is_paced = every > 0 or host.delay > 0 or host.opened > 0
      if host.busy >= most or (is_paced and redis.call("ZCOUNT", TURNS .. name, "-inf", 0) > 0) then break end
      redis.call("ZREM", line, id)
      redis.call("ZADD", rounds, round, "")
      redis.call("ZREMRANGEBYSCORE", rounds, "-inf", "(" .. round)
      redis.call("ZADD", TURNS .. name, -now_ms, id)
      host.busy, host.waiting = host.busy + 1, host.waiting - 1
      redis.call("ZREM", scheduled, id)
      redis.call("HSET", job, "status", "queued", "enqueued_at", iso())
      place(id, deaths, "LPUSH")
    end
  end
  redis.call("ZADD", HOSTS, again, name)
end

local function call_due()
  for _, name in ipairs(redis.call("ZRANGE", HOSTS, "-inf", now_ms, "BYSCORE", "LIMIT", 0, 20)) do call(name) end
end

-- In how many ms a task may be called again; -1 if none waits.
local function next_call()
  local first = redis.call("ZRANGE", HOSTS, 0, 0, "WITHSCORES")
  return first[2] and math.max(0, first[2] - now_ms) or -1
end

