"""What ``scripts/up`` starts and watches.

up                                   starts everything, and stops it
data_folder, configuration, ports    the folder it is in, the settings of all parts, their ports
parts, services, hub_acl, policy     the parts; Redis, RabbitMQ and the document store; rights; the policy of queues
startup, launch, probes              starts the parts in order: becomes one, finds out whether it is ready
supervision, watch, processes        drives supervisord; reports parts that die; ends process groups
changed_regions                      takes regions that came or went into a stack that runs
dashboard, dashboard_roles           a region's rq-dashboard, and who may do what there
prometheus                           what it scrapes, and the alert rules
distance, wan, wan_links             how far regions are; the links between
summary, monitor                     says where everything is; what a Redis executes
gateway_client, own_stack            calls the gateway for commands; a whole stack for one command
"""
