-- Renews a worker's lease, then takes jobs from the queue: drops those that are late, cancelled or deleted, lets those
-- wait that have no turn or that join a leader, and begins an execution of each other one.
-- `own` is the queue to take from; `nonce` makes the executions' ids; `kind` is that of the worker, as jobs.queue.claim.Kind:
-- what an urgent one has no thread for goes to the front of the normal queue, and it takes from there, too.
-- Returns {now_ms, 1 if the lease had lapsed, why it took nothing or "", a row for each job, in how many ms a task that
-- waits may be called (or -1), frames}. Of a job: `told` is the number of its answer among the frames, 0 if it has
-- none, and `leader` whose answer that is; `refused_ms`, if 0 or more: its turn would come in that many ms, too late;
-- `trouble` and `why`: what is wrong with its host.
-- keys: own, queue, urgent, suspects, scheduled, wip, canceled, worker, held, lease, workers, outbox_bytes, urgent_lease, urgent_seen
-- args: count, name, nonce, kind
-- uses: place, hosts, host_queue, shared_fetch, join, leave, latest
-- rows: job (task, execution, attempt, data, request, source, past, deaths, deadline_ms, bridged_ms, host, turn_ms,
--   refused_ms, trouble, why, told, leader)
-- constants: LEASE_MS, URGENT_LEASE_MS, URGENT_SEEN_MS, RQ_SUSPENDED, OUTBOX_MAX_BYTES, ALONE, ALONE_MAX, SKIPPED_MAX, CARRIED_MAX_BYTES, JOB,
--   JOB_DEADLINE, JOB_REQUEST, JOB_SOURCE, JOB_PAST, JOB_DEATHS, JOB_BRIDGED, JOB_HOST, JOB_SINCE, JOB_KEY, JOB_JOINED,
--   JOB_SHARED, JOB_ASKED, JOB_MAX_AGE, JOB_FRONT, CANCEL_MARK, JOB_KEPT, KEEP_MS, DEATHS_MAX, FLIGHT, TURNS, HOST, RETRIED,
--   JOB_ATTEMPT, EXECUTION, EXECUTION_TURN, EXECUTIONS, FAR_SECONDS, WORKER_TTL_SECONDS
-- flags: allow-oom

local wanted = tonumber(count)
local lapsed = redis.call("SET", lease, name, "PX", LEASE_MS, "GET") == false
redis.call("ZADD", workers, now_ms, name)
local refusal = ""
if redis.call("EXISTS", worker) == 0 or redis.call("HEXISTS", worker, "death") == 1 then refusal = "unregistered"
elseif redis.call("EXISTS", RQ_SUSPENDED) == 1 then refusal = "suspended"
elseif tonumber(redis.call("GET", outbox_bytes) or 0) >= OUTBOX_MAX_BYTES then refusal = "outbox full" end
if kind == "alone" then
  redis.call("ZREMRANGEBYSCORE", ALONE, "-inf", now_ms - LEASE_MS)
  redis.call("ZADD", ALONE, now_ms, name)
  if redis.call("ZCARD", ALONE) > ALONE_MAX then
    redis.call("ZREM", ALONE, name)
    refusal = "enough alone"
  end
end
if refusal ~= "" then wanted = 0 end
local function pop()
  local task = redis.call("LPOP", own)
  if task or kind ~= "urgent" then return task end
  local first = redis.call("LINDEX", queue, 0)  -- may have been left to the normal ones while this process was full
  if first and redis.call("HGET", JOB .. first, JOB_FRONT) == "1" then return redis.call("LPOP", queue) end
end

local found, skipped, stamp = {}, 0, iso()
if wanted > 0 and is_waited_for and not joining().is_told(redis.call("LINDEX", own, 0)) then call_due() end
while #found < wanted and skipped < SKIPPED_MAX and carried < CARRIED_MAX_BYTES do
  local task = pop()
  if not task then break end
  local job = JOB .. task
  local data, deadline_ms, request, source, status, past, deaths, bridged_ms, host, since, key, joined, shared, asked, max_age =
    unpack(redis.call("HMGET", job, "data", JOB_DEADLINE, JOB_REQUEST, JOB_SOURCE, "status", JOB_PAST, JOB_DEATHS, JOB_BRIDGED,
      JOB_HOST, JOB_SINCE, JOB_KEY, JOB_JOINED, JOB_SHARED, JOB_ASKED, JOB_MAX_AGE))
  deadline_ms, since = tonumber(deadline_ms or ""), tonumber(since or "")
  request, source, host = request or "", source or "", host or ""
  if not data or status ~= "queued" then
    skipped = skipped + 1
  elseif (deadline_ms and deadline_ms <= now_ms) or redis.call("EXISTS", CANCEL_MARK .. task) == 1 then
    skipped = skipped + 1
    if since then forget(host, task) end
    if redis.call("EXISTS", CANCEL_MARK .. task) == 1 or redis.call("HEXISTS", job, JOB_KEPT) == 0 then
      redis.call("HSET", job, "status", "canceled", "ended_at", stamp)
      redis.call("PEXPIRE", job, KEEP_MS)
      redis.call("ZADD", canceled, seconds, task)
      keep_latest(canceled)
      if key then share(key, task, "", -1, 0, "") end
      if (shared or "") ~= "" then sharing().taken(shared) end
    end  -- else it failed before, and ends as that (due.lua)
  else
    local refused_ms, is_put_off, trouble, why = -1, false, "", ""
    deaths = tonumber(deaths or 0)
    local is_poison, is_joined, told, leader = deaths >= DEATHS_MAX, false, nil, shared or ""
    if leader ~= "" then told = joining().carry(leader) end
    if (joined or "") ~= "" or (leader ~= "" and not told) then
      redis.call("HSET", job, JOB_JOINED, "", JOB_SHARED, told and leader or "")
    end
    if key and not told and not is_poison then
      local leads = redis.call("SET", FLIGHT .. key, task, "NX", "GET", "PXAT", own_ms((deadline_ms or now_ms) + KEEP_MS))
      if leads and leads ~= task and (sharing().parse(leads)) ~= task then
        local ms
        is_joined, told, ms, leader = joining().join({
          id = task, key = key, host = host, source = source, request = request, deadline = deadline_ms,
          asked = tonumber(asked or ""), bridged = bridged_ms, max_age = max_age,
        }, leads, since)
        refused_ms = ms or -1
        if leader then redis.call("HSET", job, JOB_SHARED, leader) end
      end
    end
    if host ~= "" and not (is_poison or is_joined or told) then
      local is_called = since and redis.call("ZSCORE", TURNS .. host, task)
      local known, most, every = look(host), limit_of(host, source)
      if refused_ms < 0 and not take(host, known, most, every, task, is_called) then
        refused_ms = wait(host, known, most, every, task, request, deadline_ms, is_called) or -1
        is_put_off = refused_ms < 0 or redis.call("HEXISTS", job, JOB_KEPT) == 1
      end
      if known.opened > 0 and refused_ms >= 0 then
        trouble, why = unpack(redis.call("HMGET", HOST .. host, "type", "why"))
      elseif known.fails > 0 then
        trouble = "some"
      end
    end
    if is_joined then
      skipped = skipped + 1
    elseif is_put_off then
      skipped = skipped + 1
      if refused_ms < 0 then
        redis.call("HSET", job, "status", "scheduled", JOB_SINCE, since or now_ms)
      else  -- it failed before, and ends as that
        redis.call("HSET", job, "status", "scheduled", JOB_SINCE, "")
        redis.call("ZADD", RETRIED, now_ms, task)
      end
    else
      local execution = nonce .. #found
      local member = task .. ":" .. execution
      local counts = not (is_poison or told) and refused_ms < 0  -- an execution that only ends is no attempt
      local attempt = redis.call("HINCRBY", job, JOB_ATTEMPT, counts and 1 or 0)
      redis.call("HSET", job, "status", "started", "worker_name", name, "started_at", stamp, "last_heartbeat", stamp,
        since and JOB_SINCE or "status", since and "" or "started")
      redis.call("HSET", EXECUTION .. member, "id", execution, "job_id", task, "worker_name", name,
        "created_at", now, "last_heartbeat", now, EXECUTION_TURN, counts and host or "")
      redis.call("ZADD", EXECUTIONS .. task, seconds + FAR_SECONDS, execution)
      redis.call("ZADD", wip, seconds + FAR_SECONDS, member)
      redis.call("SADD", held, member)
      past, deadline_ms, bridged_ms, trouble, why = past or "", deadline_ms or 0, tonumber(bridged_ms or 0), trouble or "", why or ""
      told, leader = told or 0, told and leader or ""
      local turn_ms = since and now_ms - since or 0
      found[#found + 1] = job_row()
    end
  end
end
if kind == "urgent" and refusal == "" then
  redis.call("SET", urgent_lease, name, "PX", URGENT_LEASE_MS)
  if #found > 0 then redis.call("SET", urgent_seen, name, "PX", URGENT_SEEN_MS) end
  overflow()
end
if refusal ~= "unregistered" then
  local state = refusal == "suspended" and refusal or redis.call("EXISTS", held) == 1 and "busy" or "idle"
  redis.call("HSET", worker, "last_heartbeat", stamp, "state", state)
  redis.call("EXPIRE", worker, WORKER_TTL_SECONDS)
end
return {now_ms, lapsed and 1 or 0, refusal, found, has_waiting and next_call() or -1, frames}
