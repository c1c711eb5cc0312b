"""Where things run: settings, names, connections and the broker's topology. Imports nothing else of the project.

settings               all settings with their defaults, read and checked (toml, folders, faults)
  gateway, webhooks, schedule, egress, secret   those of one table each
names                  every name that two processes share
topology               the broker's exchanges and queues
connect, hosts, link   opens every connection; URLs with several hosts; a connection that never reconnects by itself
durability             whether a Redis keeps its data, and how far it has written its file
script, lua_files      calls Lua scripts; reads them from files
frames                 AMQP's frames of a published message
loop, process          a thread that repeats one turn; one process of this host
counts, latency        counts in plain integers; whether a server answers late
metrics                names of figures, and their text for Prometheus
logs, printable        log lines; characters that a terminal would obey
"""
