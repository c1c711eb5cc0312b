"""The only maker of names that cross a process: exchanges, queues, routing keys, Redis keys, RQ names.

Every name of ours in a Redis begins with ``nf:``, so that an ACL can speak of them and nothing of RQ's is touched.

Hub (central Redis)
    nf:req:{request}         hash    a request's ledger (web.ledger)
    nf:trail:{request}       hash    where its tasks were: "{task}" and "d:{task}" (web.trail)
    nf:evt:{request}         stream  its settled tasks; the entry ids are the cursor
    nf:res:{region}:{task}   string  a result frame (jobs.contract) that its region brought and nobody has settled yet; or made by "hub"
    nf:res:{region}+:{task}  string  the same, settled: no region may write there
    nf:held:{region}         hash    bytes of its settled results: in "all", and by the minute in which they expire (web.holdings)
    nf:refused:{region}      hash    what of its entries was refused: how often, by what was wrong; "at": when last (web.refusals)
    nf:barred                hash    regions that may not write here for a while: until when (hub ms), and why (web.holdings)
    nf:holdings              string  the gateway that looks after what regions hold
    nf:out:{region}          stream  what a region has to say; read by the consumer group of the gateways
    nf:region:{region}       hash    what the region's parts said last, a field a part
    nf:accepting             zset    requests not yet accepted, by the end of their lease (hub ms)
    nf:due                   zset    "{request}/{task}" by deadline + grace (hub ms)
    nf:open:{region}         zset    "{request}/{task}" by the time of accept (hub ms)
    nf:archive               zset    finished requests that the history lacks, by when to take them (hub ms)
    nf:runs:{source}         list    what its last runs showed, newest first (web.runs)
    nf:health                hash    the verdict on each source (web.health)
    nf:traffic:{region}      hash    what its runs fetched and sent home: "runs:", "failed:", "raw:", "records:", "wire:" + source
    nf:dead                  hash    dead letters by id, until an operator has worked them (web.dead)
    nf:dead:at               zset    their ids by the time when they were kept (hub ms)
    nf:wake                  channel ids of requests that have news, with a + behind where more is to come
    nf:latest:{key}          string  the latest success of who asks the same: when it finished (hub ms), bytes, its result's key

Region (its own Redis, beside RQ's keys)
    nf:lease:{worker}        string  a worker process's lease
    nf:workers               zset    worker processes by the last claim (region ms)
    nf:cancel:{task}         string  this task is cancelled
    nf:clock                 string  ms that the region's clock is ahead of its Redis's (jobs.clock)
    nf:fence                 string  written after a batch of jobs, to wait for the append-only file
    nf:outbox                stream  outcomes on their way home
    nf:outbox:bytes          string  how many bytes they are
    nf:outbox:turn           string  the process that ships what nobody else did
    nf:counters              hash    what the region did: succeeded, failed, raw, records, wire
    nf:alone                 zset    worker processes that run suspects, by the last claim (region ms)
    nf:pools                 hash    the pools of worker processes, a field a pool: when it was last seen, and its processes
    nf:scale                 string  how many processes the region has, and why (jobs.scaler)
    nf:scale:turn            string  the pool that decides it
    nf:scale:wish            string  what an operator asked for; expires with the next rule
    nf:day                   stream  the region's last day, an entry a minute (jobs.day)
    nf:retried               zset    tasks that failed and will be tried again, by deadline (region ms)
    nf:limits                hash    what sources and hosts allow: "AT_ONCE MS_BETWEEN" (jobs.turn)
    nf:hosts                 zset    hosts that tasks wait for, by when to look at them again (region ms)
    nf:host:{host}           hash    how a host is: next, mean, swept, delay (ms), fails, opened, tried, type, why
    nf:open                  zset    hosts that are left alone for their failures, by when to forget them (region ms)
    nf:turns:{host}          zset    tasks that have a turn, by since when (region ms)
    nf:line:{host}           zset    tasks that wait for a turn, by the round in which it is theirs
    nf:rounds:{host}         zset    the last round of each request that waits; of "", the round that is served
    nf:flight:{key}          string  the task that asks this question, and whether others want its answer too (jobs.flight)
    nf:joined:{key}          list    those others
    nf:flights               zset    questions that others wait with, by when to look after them (region ms)
    nf:shared:{task}         hash    a task's answer for those others: frame, key, till and began (region ms), left, late
    nf:landing:{task}        list    those of them that were not told of it yet
    nf:cache:{key}           hash    the last good answer to a question: meta and frame (jobs.cache)
    nf:cached                zset    those questions, by when they were answered (region ms)
    nf:cached:bytes          string  how many bytes they are
"""

REGION_PATTERN = r"[a-z][a-z0-9-]{0,31}"
SOURCE_PATTERN = r"[a-z0-9_.-]+"

# RabbitMQ
TASKS_EXCHANGE = "x.tasks"
DEAD_EXCHANGE = "x.dead"
DEAD_QUEUE = "q.dead"

# Hub
ACCEPTING = "nf:accepting"
DUE = "nf:due"
ARCHIVE = "nf:archive"
WAKE = "nf:wake"
MORE = "+"  # behind a request's id there: not all of its tasks have ended
HEALTH = "nf:health"
DEAD = "nf:dead"
DEAD_AT = "nf:dead:at"
GATEWAYS = "gateways"  # the consumer group of the out streams
HUB = "hub"  # stands for a region in a result that the hub itself made; no region has this name
BARRED = "nf:barred"
HOLDINGS = "nf:holdings"

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
CLOCK = "nf:clock"
FENCE = "nf:fence"
POOLS = "nf:pools"
SCALE = "nf:scale"
SCALE_TURN = "nf:scale:turn"
SCALE_WISH = "nf:scale:wish"
DAY = "nf:day"
WORKERS = "nf:workers"

# MongoDB
DATABASE = "nearfetch"  # where the URL names none
REQUESTS_COLLECTION = "requests"
RESULTS_COLLECTION = "results"

# The one function that a job may name (RQ would import any).
JOB_FUNCTION = "jobs.task.run"

# Fields of a job's hash beside RQ's own, since a script can't read a job's packed data.
JOB_DEADLINE = "nf_deadline"  # ms on the region Redis's clock
JOB_BRIDGED = "nf_bridged"  # when it was enqueued (hub ms)
JOB_MAX_AGE = "nf_max_age"  # how much older than that an answer may be (ms), where it may be older at all
JOB_ATTEMPT = "nf_attempt"  # executions begun
JOB_HOST = "nf_host"
JOB_REQUEST = "nf_request"
JOB_SOURCE = "nf_source"
JOB_PAST = "nf_past"  # attempts that did not end it, a line each (jobs.retry.Attempt)
JOB_KEPT = "nf_kept"  # how the last attempt failed, packed: what it ends as when no other one begins in time
JOB_DEATHS = "nf_deaths"  # how many processes died while they ran it: from one on it is a suspect
JOB_LAPSED = "nf_lapsed"  # when a process that ran it was last given up without being seen to die (region ms)
JOB_FRONT = "nf_front"  # it goes to the front of the queue: somebody waits for it
JOB_SINCE = "nf_since"  # when it began to wait for its host's turn (region ms); empty when it does not
JOB_KEY = "nf_key"  # what tells its question from others (jobs.contract.key_of)
JOB_JOINED = "nf_joined"  # the key of the question that it waits for another task to ask; empty when it does not
JOB_ASKED = "nf_asked"  # when it was asked for (region ms), where another task that was waiting asked the same before
JOB_SHARED = "nf_shared"  # the task that asked the same, and whose answer it takes

EXECUTION_TURN = "nf_turn"  # a field of an execution's hash: the host whose turn it has


def work_queue(region: str) -> str:
    """The broker's queue of a region's bulk work; its routing key is the region."""
    return f"q.{region}"


def fast_queue(region: str) -> str:
    """The broker's queue of a region's synchronous tasks and control messages."""
    return f"q.{region}.now"


def routing_key(region: str, *, fast: bool) -> str:
    """The routing key in ``x.tasks`` of one of a region's two queues."""
    return f"{region}.now" if fast else region


def region_of(key: str) -> str:
    """The region that a routing key leads to."""
    return key.removesuffix(".now")


def ledger(request: str) -> str:
    """A request's ledger, a hash on the hub."""
    return f"nf:req:{request}"


def events(request: str) -> str:
    """A request's own stream on the hub."""
    return f"nf:evt:{request}"


def trail(request: str) -> str:
    """Where a request's tasks were, a hash on the hub."""
    return f"nf:trail:{request}"


def result(region: str, task: str) -> str:
    """Where a region (or ``HUB``) puts the result frame of a task, on the hub."""
    return f"nf:res:{region}:{task}"


def settled(region: str) -> str:
    """Stands for a region in a result of its own that was settled: a place that no region's user may write."""
    return f"{region}+"


def held(region: str) -> str:
    """How many bytes a region's settled results are, on the hub."""
    return f"nf:held:{region}"


def refused(region: str) -> str:
    """What of a region's entries was refused, on the hub."""
    return f"nf:refused:{region}"


def hub_user(region: str) -> str:
    """A region's user on the hub's Redis and on the broker."""
    return f"region-{region}"


def latest(key: str) -> str:
    """Which result is the latest of those who ask the same (``contract.key_of``), on the hub."""
    return f"nf:latest:{key}"


def out_stream(region: str) -> str:
    """The stream on the hub that a region appends to."""
    return f"nf:out:{region}"


def region_status(region: str) -> str:
    """What a region's parts said of themselves last, a hash on the hub."""
    return f"nf:region:{region}"


def open_tasks(region: str) -> str:
    """A region's tasks that are not final, by the time of their accept, on the hub."""
    return f"nf:open:{region}"


def runs(source: str) -> str:
    """What the last runs of a source showed, newest first, on the hub."""
    return f"nf:runs:{source}"


def traffic(region: str) -> str:
    """Sums of what a region's runs fetched and sent home, by source, on the hub."""
    return f"nf:traffic:{region}"


def due_member(request: str, task: str) -> str:
    """The member of a task in ``DUE`` and ``open_tasks``."""
    return f"{request}/{task}"


def lease(worker: str) -> str:
    """The lease of a worker process, in its region."""
    return f"nf:lease:{worker}"


def cancel_mark(task: str) -> str:
    """The mark that a task is cancelled, in its region."""
    return f"nf:cancel:{task}"


def host(host: str) -> str:
    """How a host is, in its region; a host is an origin (jobs.origin)."""
    return f"nf:host:{host}"


def turns(host: str) -> str:
    """The tasks that have a turn of a host."""
    return f"nf:turns:{host}"


def line(host: str) -> str:
    """The tasks that wait for a turn of a host."""
    return f"nf:line:{host}"


def rounds(host: str) -> str:
    """The rounds of those that wait for a host."""
    return f"nf:rounds:{host}"


def flight(key: str) -> str:
    """The task that asks a question, in its region."""
    return f"nf:flight:{key}"


def joined(key: str) -> str:
    """The tasks that wait for another one to ask the same question."""
    return f"nf:joined:{key}"


def shared(task: str) -> str:
    """A task's answer, for those that waited for it."""
    return f"nf:shared:{task}"


def landing(task: str) -> str:
    """Those that waited for a task's answer and were not told of it yet."""
    return f"nf:landing:{task}"


def cache(key: str) -> str:
    """The last good answer to a question."""
    return f"nf:cache:{key}"


# RQ 3's own keys, as rq.queue, rq.job, rq.registry, rq.executions and rq.worker make them.
RQ_QUEUES = "rq:queues"
RQ_SUSPENDED = "rq:suspended"
RQ_WORKERS = "rq:workers"


def rq_queue(region: str) -> str:
    """RQ's list of the jobs that wait; RQ's queue has the region's name."""
    return f"rq:queue:{region}"


def suspects(region: str) -> str:
    """The RQ queue of a region's jobs that run alone, one in a process; no region has such a name."""
    return f"{region}.suspects"


def rq_job(task: str) -> str:
    """RQ's hash of a job; its id is the task's."""
    return f"rq:job:{task}"


def rq_worker(worker: str) -> str:
    """RQ's hash of a worker."""
    return f"rq:worker:{worker}"


def rq_registry(kind: str, region: str) -> str:
    """RQ's registries of a queue: ``wip`` (started), ``finished``, ``failed``, ``canceled``, ``scheduled``."""
    return f"rq:{kind}:{region}"


def rq_workers_of(region: str) -> str:
    """RQ's set of the workers of a queue."""
    return f"rq:workers:{region}"


def rq_worker_executions(worker: str) -> str:
    """RQ's set of what a worker runs, as ``execution_member`` names it."""
    return f"rq:worker:{worker}:executions"


def execution_member(task: str, execution: str) -> str:
    """An execution as RQ's registries name it."""
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
