"""The only maker and reader of names that two processes share: exchanges, queues, routing keys, Redis keys, RQ names.

Each of our Redis keys begins with ``nf:``. An ACL can therefore name them all, and none collides with RQ's.

Hub (central Redis)
    nf:req:{request}         hash    a request's ledger (web.hub.ledger)
    nf:trail:{request}       hash    the hops of its tasks: "{task}" and "d:{task}" (web.api.trail); "{task}|{region}" if several regions were asked
    nf:evt:{request}         stream  its settled tasks; the entry ids are the cursor
    nf:res:{region}:{task}   string  a result frame (jobs.result_frame) that its region shipped and no gateway has settled; or one of "hub"
    nf:res:{region}:fence-{id} string  written after a batch of results, to wait for the append-only file (jobs.queue.home); it expires
    nf:res:{region}+:{task}  string  a settled result frame; no region may write to this key
    nf:held:{region}         hash    bytes of the region's settled results: the sum in "all", and by the minute of their expiry (web.flow.holdings)
    nf:refused:{region}      hash    refused entries of the region: a count for each fault; "at": when the last one came (web.flow.refusals)
    nf:barred                hash    regions that may not write here for a while: until when (hub ms), and why (web.flow.holdings)
    nf:holdings              string  the gateway whose turn it is to check what regions hold
    nf:takeover              hash    regions that lose their tasks to standbys, and why (web.hub.takeover)
    nf:takeover:turn         string  the gateway whose turn it is to decide that
    nf:ask:{request}         hash    the messages of those tasks that a standby may take over, until its deadline (web.flow.takeover)
    nf:out:{region}          stream  what a region reports; the consumer group of the gateways reads it
    nf:region:{region}       hash    the last status of each of the region's parts, one field for each part
    nf:told:{region}         list    what happened to the region, the latest 100 events (web.hub.events)
    nf:waiting               hash    the gateways: how many clients wait there with each API key that has a limit of them (web.hub.keys)
    nf:gateways              hash    the gateways: when each spoke last, and its last starts (hub ms; web.hub.gateways)
    nf:faults:turn           string  the gateway that notes those events
    nf:regions               zset    regions, by the time when a gateway last had their file (hub ms; web.flow.served)
    nf:accepting             zset    requests that are not accepted yet, by the end of their lease (hub ms)
    nf:due                   zset    "{request}/{task}" by deadline + grace (hub ms)
    nf:open:{region}         zset    "{request}/{task}" of unfinished tasks, by the time of accept (hub ms)
    nf:listed                zset    "{tenant}/{request}" of requests that the history does not have (yet), for the list of requests
    nf:archive               zset    finished requests that the history lacks, by the time at which to store them (hub ms)
    nf:runs:{source}         list    the source's last runs, newest first (web.hub.runs)
    nf:health                hash    the verdict on each source (web.hub.verdict)
    nf:traffic:{region}      hash    sums for each source of the region (web.hub.traffic): "runs:", "raw:", "wire:" and others + source
    nf:traffic:{region}:{day} hash   those of a day, and under "" those of all sources; it expires
    nf:took:{region}:{minute} hash   the region's tasks that ended in a minute, by how long they took (web.hub.recent); it expires
    nf:hour:{hour}           hash    runs of each source in an hour (web.hub.recent): "runs:", "failed:", "busy_ms:" + source; it expires
    nf:failure               hash    the last failure of each source (web.hub.recent)
    nf:day:{region}          hash    the region's last day: a contract.Minute for each minute of the day from 0 to 1439
    nf:dead                  hash    dead letters by id, until an operator retries or drops them (web.flow.dead)
    nf:dead:at               zset    ids of the dead letters, by the time when they were kept (hub ms)
    nf:webhook:{request}     hash    the address to call when the request has ended, its secret, and the state of the call (web.hub.webhooks)
    nf:webhook:{request}:ended hash  the ledger of a request that has ended, until the message about it is made
    nf:webhooks              zset    requests whose webhooks have not ended, by the time of the next look at them (hub ms)
    nf:webhooks:ended        zset    ended requests that have a webhook, by the time of their end (hub ms)
    nf:webhooks:senders      zset    processes that call webhooks, by their last claim (hub ms)
    nf:wake                  channel ids of requests that have news; a "+" follows the id while tasks are unfinished
    nf:sessions:{key}        zset    sessions of the console that an API key has, by the time of their end (web.hub.sessions)
    nf:keys                  hash    API keys by id, as JSON (web.hub.keys)
    nf:used:{key}            hash    what an API key has used of its limits (web.hub.keys); it expires
    nf:idem:{key}            hash    the request that an Idempotency-Key made (web.api.repeat); it expires
    nf:latest:{key}          string  the latest success for a question: when it finished (hub ms), bytes, its result's key

Region (its own Redis, beside RQ's keys)
    nf:lease:{worker}        string  a worker process's lease
    nf:workers               zset    worker processes by their last claim (region ms)
    nf:cancel:{task}         string  the mark that this task is cancelled
    nf:clock                 string  ms by which the region's clock is ahead of its Redis's (jobs.queue.clock)
    nf:fence                 string  written after a batch of jobs, to wait for the append-only file
    nf:outbox                stream  outcomes on their way to the hub
    nf:outbox:bytes          string  the bytes in the outbox
    nf:outbox:turn           string  the process that ships outcomes left behind by others
    nf:counters              hash    the region's counters: succeeded, failed, raw, records, wire
    nf:urgent                string  the process that takes urgent tasks; without it the others take them
    nf:urgent:seen           string  the process that took one lately; while it is there, the others give way
    nf:alone                 zset    worker processes that run suspects, by their last claim (region ms)
    nf:pools                 hash    a field for each pool of worker processes: when it was last seen, and its processes
    nf:scale                 string  how many processes the region has, and why (jobs.pool.scaler)
    nf:scale:turn            string  the pool that decides that number
    nf:scale:wish            string  the number that an operator set; it expires when the next rule begins
    nf:day                   stream  the region's last day, one entry for each minute (jobs.pool.day)
    nf:retried               zset    tasks that failed and are due for a retry, by deadline (region ms)
    nf:limits                hash    the limits of sources and hosts: "AT_ONCE MS_BETWEEN" (jobs.queue.turn)
    nf:hosts                 zset    hosts that tasks wait for, by the time at which to look at them again (region ms)
    nf:host:{host}           hash    the state of a host: next, mean, swept, delay (ms), fails, opened, tried, type, why
    nf:open                  zset    hosts whose breaker is open, by the time at which to forget them (region ms)
    nf:turns:{host}          zset    tasks that have a turn, by the time when they got it (region ms)
    nf:line:{host}           zset    tasks that wait for a turn, by the round that serves them
    nf:rounds:{host}         zset    each waiting request's last round; under "", the round being served
    nf:flight:{key}          string  the leader of a question, and whether other tasks joined it (jobs.queue.shared_fetch)
    nf:joined:{key}          list    tasks that joined the leader
    nf:flights               zset    questions that tasks have joined, by the time at which to look at them (region ms)
    nf:shared:{task}         hash    a leader's answer for the joined tasks: frame, key, till and began (region ms), left, late
    nf:landing:{task}        list    joined tasks that were not yet told of that answer
    nf:cache:{key}           hash    the last good answer to a question: meta and frame (jobs.answers.cache)
    nf:cached                zset    questions with a kept answer, by when they were answered (region ms)
    nf:cached:bytes          string  the bytes of all kept answers

A question is a source, its definition and params: tasks that ask the same question have the same key (contract.key_of).
"""

REGION_PATTERN = r"[a-z][a-z0-9-]{0,31}"
SOURCE_PATTERN = r"[a-z0-9_.-]+"

# RabbitMQ
TASKS_EXCHANGE = "x.tasks"
DEAD_EXCHANGE = "x.dead"
DEAD_QUEUE = "q.dead"

# Hub
ACCEPTING = "nf:accepting"
KEYS = "nf:keys"  # of the HTTP interface, on the hub
DUE = "nf:due"
LISTED = "nf:listed"
ARCHIVE = "nf:archive"
WAKE = "nf:wake"
MORE = "+"  # follows a request's id on nf:wake: some of its tasks have not ended
HEALTH = "nf:health"
FAILURE = "nf:failure"
DEAD = "nf:dead"
DEAD_AT = "nf:dead:at"
GATEWAYS = "gateways"  # the consumer group of the out streams
HUB = "hub"  # takes a region's place in results that the hub itself makes; no region may have this name
BARRED = "nf:barred"
REGIONS = "nf:regions"
HOLDINGS = "nf:holdings"
WEBHOOKS = "nf:webhooks"
WEBHOOKS_ENDED = "nf:webhooks:ended"
WEBHOOK_SENDERS = "nf:webhooks:senders"
WEBHOOK_SENDER_MS = 8_000  # after its last claim a process counts as gone
WEBHOOK_KEPT_MS = 86_400_000  # for how long after its last attempt a webhook is shown, and may be called again
WEBHOOK_QUEUE = "hub.webhooks"  # the RQ queue on the hub's Redis; no region can have such a name
TAKEOVER = "nf:takeover"
TAKEOVER_TURN = "nf:takeover:turn"
GATEWAY_LIST = "nf:gateways"
WAITING = "nf:waiting"
FAULTS_TURN = "nf:faults:turn"

# Region
OUTBOX = "nf:outbox"
OUTBOX_BYTES = "nf:outbox:bytes"
OUTBOX_TURN = "nf:outbox:turn"
COUNTERS = "nf:counters"
RETRIED = "nf:retried"
LIMITS = "nf:limits"
HOSTS = "nf:hosts"
OPEN = "nf:open"
FLIGHTS = "nf:flights"
CACHED = "nf:cached"
CACHED_BYTES = "nf:cached:bytes"
ALONE = "nf:alone"
URGENT_LEASE = "nf:urgent"
URGENT_SEEN = "nf:urgent:seen"
CLOCK = "nf:clock"
FENCE = "nf:fence"
POOLS = "nf:pools"
SCALE = "nf:scale"
SCALE_TURN = "nf:scale:turn"
SCALE_WISH = "nf:scale:wish"
DAY = "nf:day"
WORKERS = "nf:workers"

# MongoDB
DATABASE = "nearfetch"  # the default when the URL names no database
REQUESTS_COLLECTION = "requests"
RESULTS_COLLECTION = "results"

# The only function that a job may name, since RQ would import any.
JOB_FUNCTION = "jobs.task.run"
# That of a job which calls a webhook, on the hub's Redis.
WEBHOOK_FUNCTION = "jobs.webhook.run"

# Our own fields in a job's hash, beside RQ's: Lua scripts can't read RQ's packed data.
JOB_DEADLINE = "nf_deadline"  # ms on the region Redis's clock
JOB_BRIDGED = "nf_bridged"  # when it was enqueued (hub ms)
JOB_MAX_AGE = "nf_max_age"  # how old an answer may be when the job is enqueued (ms); absent when it must not be older
JOB_ATTEMPT = "nf_attempt"  # how many executions have begun
JOB_HOST = "nf_host"
JOB_REQUEST = "nf_request"
JOB_SOURCE = "nf_source"
JOB_PAST = "nf_past"  # earlier attempts that did not end the job, one line for each (jobs.queue.retry.Attempt)
JOB_KEPT = "nf_kept"  # the packed outcome of the last failed attempt; the job ends with it if no retry begins in time
JOB_DEATHS = "nf_deaths"  # how many processes died while they ran it; from one on it is a suspect
JOB_LAPSED = "nf_lapsed"  # when a process that ran it was last given up without having been seen to die (region ms)
JOB_FRONT = "nf_front"  # 1 when a client waits for it: it goes to the front of the queue
JOB_SINCE = "nf_since"  # when it began to wait for a turn (region ms); empty when it is not waiting
JOB_KEY = "nf_key"  # the key of its question (jobs.contract.key_of)
JOB_JOINED = "nf_joined"  # the key of the question whose leader it joined; empty when it joined none
JOB_ASKED = "nf_asked"  # when it was asked for (region ms); set only if an earlier task asked the same question while jobs waited
JOB_SHARED = "nf_shared"  # the leader whose answer it takes

EXECUTION_TURN = "nf_turn"  # a field of an execution's hash: the host of which it has a turn


def work_queue(region: str) -> str:
    """The broker's queue for a region's bulk tasks; the region's name is also its routing key."""
    return f"q.{region}"


def fast_queue(region: str) -> str:
    """The broker's queue for a region's synchronous tasks and control messages."""
    return f"q.{region}.now"


def routing_key(region: str, *, fast: bool) -> str:
    """The routing key in ``x.tasks`` for one of a region's two queues."""
    return f"{region}.now" if fast else region


def region_of(key: str) -> str:
    """The region to which a routing key leads."""
    return key.removesuffix(".now")


def region_of_queue(queue: str) -> str:
    """The region of one of the broker's queues."""
    return region_of(queue.removeprefix(work_queue("")))


def ledger(request: str) -> str:
    """The hash on the hub that is a request's ledger."""
    return f"nf:req:{request}"


def used(key: str) -> str:
    """The hash on the hub that counts what an API key uses."""
    return f"nf:used:{key}"


def idempotency(key: str) -> str:
    """The hash on the hub that remembers which request a client's Idempotency-Key made."""
    return f"nf:idem:{key}"


def webhook(request: str) -> str:
    """The hash on the hub with a request's webhook: its address, its secret, and how far the call is."""
    return f"nf:webhook:{request}"


def webhook_ledger(request: str) -> str:
    """The copy of a request's ledger from which the message for its webhook is made."""
    return f"{webhook(request)}:ended"


def events(request: str) -> str:
    """The stream on the hub of a request's settled tasks."""
    return f"nf:evt:{request}"


def trail_field(task: str, region: str) -> str:
    """The field of a task's hops in one of several regions that were asked for it."""
    return f"{task}|{region}"


def ask(request: str) -> str:
    """The hash on the hub with the messages that ask a standby for a request's tasks."""
    return f"nf:ask:{request}"


def trail(request: str) -> str:
    """The hash on the hub with the hops of a request's tasks."""
    return f"nf:trail:{request}"


def result(region: str, task: str) -> str:
    """The key on the hub of a task's result frame, which a region (or ``HUB``) makes."""
    return f"nf:res:{region}:{task}"


def result_of(key: str) -> tuple[str, str]:
    """Returns (region, task) of a result's key, settled or not."""
    place, _, task = key.rpartition(":")
    return region_of_settled(place.rpartition(":")[2]), task


def result_fence(region: str, name: str) -> str:
    """The key on the hub that a region writes after its results. A region may write results only, so it is named like one."""
    return result(region, f"fence-{name}")


def settled(region: str) -> str:
    """The name that replaces a region's in the keys of its settled results. No region's user may write to these."""
    return f"{region}+"


def region_of_settled(name: str) -> str:
    """The region whose settled results have this name in their keys. A region's own name stays as it is."""
    return name.removesuffix("+")


def held(region: str) -> str:
    """The hash on the hub that counts the bytes of a region's settled results."""
    return f"nf:held:{region}"


def refused(region: str) -> str:
    """The hash on the hub that counts a region's refused entries."""
    return f"nf:refused:{region}"


def hub_user(region: str) -> str:
    """The name of a region's user on the hub's Redis and on the broker."""
    return f"region-{region}"


def latest(key: str) -> str:
    """The key on the hub that names the latest result for a question (``contract.key_of``)."""
    return f"nf:latest:{key}"


def out_stream(region: str) -> str:
    """The stream on the hub to which a region appends."""
    return f"nf:out:{region}"


def region_of_stream(stream: str) -> str:
    """The region that appends to a stream on the hub."""
    return stream.removeprefix(out_stream(""))


def region_status(region: str) -> str:
    """The hash on the hub with the last status of a region's parts."""
    return f"nf:region:{region}"


def region_events(region: str) -> str:
    """The list on the hub of what happened to a region, newest first."""
    return f"nf:told:{region}"


def open_tasks(region: str) -> str:
    """The sorted set on the hub of a region's unfinished tasks, by the time of their accept."""
    return f"nf:open:{region}"


def runs(source: str) -> str:
    """The list on the hub of a source's last runs, newest first."""
    return f"nf:runs:{source}"


def traffic(region: str) -> str:
    """The hash on the hub that sums up, by source, what a region fetched and sent home."""
    return f"nf:traffic:{region}"


def traffic_of_day(region: str, day: str) -> str:
    """The hash on the hub with these sums for one day, like "2026-11-29"."""
    return f"nf:traffic:{region}:{day}"


def sessions(key: str) -> str:
    """The sorted set on the hub with the sessions of the console that were begun with an API key."""
    return f"nf:sessions:{key}"


def took(region: str, minute: int) -> str:
    """The hash on the hub that counts the tasks of a region by how long they took. ``minute``: since the epoch."""
    return f"nf:took:{region}:{minute}"


def runs_of_hour(hour: str) -> str:
    """The hash on the hub that counts the runs of sources in an hour, like "2026-11-29T11"."""
    return f"nf:hour:{hour}"


def day_at_hub(region: str) -> str:
    """The hash on the hub with the minutes of a region's last day. In the region they are the stream ``DAY``."""
    return f"nf:day:{region}"


def listed_member(tenant: str, request: str) -> str:
    """A request as a member of ``LISTED``. Scripts make it, too."""
    return f"{tenant}/{request}"


def request_of_listed(member: str) -> str:
    """The request of a member of ``LISTED``."""
    return member.rpartition("/")[2]


def due_member(request: str, task: str) -> str:
    """A task as a member of ``DUE`` and ``open_tasks``."""
    return f"{request}/{task}"


def task_of_due(member: str) -> tuple[str, str]:
    """Returns (request, task) of a member of ``DUE`` and ``open_tasks``."""
    request, _, task = member.partition("/")
    return request, task


def lease(worker: str) -> str:
    """The key of a worker process's lease, in its region."""
    return f"nf:lease:{worker}"


def cancel_mark(task: str) -> str:
    """The key that marks a task as cancelled, in its region."""
    return f"nf:cancel:{task}"


def host(host: str) -> str:
    """The hash with the state of a host, in its region. A host is an origin (jobs.origin)."""
    return f"nf:host:{host}"


def turns(host: str) -> str:
    """The sorted set of tasks that have a turn of a host."""
    return f"nf:turns:{host}"


def line(host: str) -> str:
    """The sorted set of tasks that wait for a turn of a host."""
    return f"nf:line:{host}"


def rounds(host: str) -> str:
    """The sorted set of the rounds of requests that wait for a host."""
    return f"nf:rounds:{host}"


def flight(key: str) -> str:
    """The key that names the leader of a question, in its region."""
    return f"nf:flight:{key}"


def joined(key: str) -> str:
    """The list of tasks that joined the leader of a question."""
    return f"nf:joined:{key}"


def shared(task: str) -> str:
    """The hash with a leader's answer for the tasks that joined it."""
    return f"nf:shared:{task}"


def landing(task: str) -> str:
    """The list of joined tasks that were not yet told of the leader's answer."""
    return f"nf:landing:{task}"


def cache(key: str) -> str:
    """The hash with the last good answer to a question."""
    return f"nf:cache:{key}"


# RQ 3's own keys, as rq.queue, rq.job, rq.registry, rq.executions and rq.worker make them.
RQ_QUEUES = "rq:queues"
RQ_SUSPENDED = "rq:suspended"
RQ_WORKERS = "rq:workers"


def rq_queue(region: str) -> str:
    """RQ's list of a region's waiting jobs; the RQ queue has the region's name."""
    return f"rq:queue:{region}"


def urgent(region: str) -> str:
    """The RQ queue of a region's tasks for which clients wait. No region can have such a name."""
    return f"{region}.urgent"


def suspects(region: str) -> str:
    """The RQ queue of a region's suspects, which run one to a process. No region can have such a name."""
    return f"{region}.suspects"


def rq_job(task: str) -> str:
    """RQ's hash of a job, whose id is the task's."""
    return f"rq:job:{task}"


def rq_worker(worker: str) -> str:
    """RQ's hash of a worker."""
    return f"rq:worker:{worker}"


def worker_of(key: str) -> str:
    """The worker of one of these hashes."""
    return key.removeprefix(rq_worker(""))


def rq_registry(kind: str, region: str) -> str:
    """RQ's registry of a queue. Kinds: ``wip`` (started), ``finished``, ``failed``, ``canceled``, ``scheduled``."""
    return f"rq:{kind}:{region}"


def rq_workers_of(region: str) -> str:
    """RQ's set of a queue's workers."""
    return f"rq:workers:{region}"


def rq_worker_executions(worker: str) -> str:
    """RQ's set of a worker's executions, with members made by ``execution_member``."""
    return f"rq:worker:{worker}:executions"


def execution_member(task: str, execution: str) -> str:
    """The name of an execution in RQ's registries."""
    return f"{task}:{execution}"


def rq_execution(task: str, execution: str) -> str:
    """RQ's hash of an execution."""
    return f"rq:execution:{execution_member(task, execution)}"


def rq_executions(task: str) -> str:
    """RQ's registry of a job's executions."""
    return f"rq:executions:{task}"


def rq_results(task: str) -> str:
    """RQ's stream of a job's results."""
    return f"rq:results:{task}"
