"""The threads that move requests on, in the order in which a request meets them.

keyring                    knows the API keys
served                     which regions there are, as their files come and go
takeover, region_health    the region that gets a task: the source's own, or a standby while its own can't answer
accept, publish, kept      the ledger, the broker's confirms (confirms) and the hub's file: then a 202 may be sent
clean                      takes refused requests back, and sends cancels to regions
out_streams                reads what the regions send, one of them apart if it would delay the others
settle, refusals           end tasks by that; refused entries are counted
listen                     hears from the hub which requests have news
sweep, dead, holdings      end what nobody ended: overdue tasks, dead letters, results that nobody waits for
webhooks                   have the webhooks of ended requests called
archive, history           take finished requests to MongoDB
"""
