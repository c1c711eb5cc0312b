"""From a region's RabbitMQ queues to its RQ queue.

bridge       the loop: consumes, enqueues, acks, pauses
lane         one of the region's two queues
message      decodes messages
enqueue      writes a batch of jobs
durable      waits until a batch is in the append-only file
link         a connection that knows which Redis process it has
watch        whether the region's Redis takes jobs, and how full it is
report       status and failures, for the hub
metrics      what it did, for Prometheus
heartbeat    the file that a living loop renews
ensure       starts and replaces bridges, for cron and operators
"""
