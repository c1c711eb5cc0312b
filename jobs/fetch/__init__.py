"""To the source and back: a request becomes a page (requests, urllib3, sockets).

egress       a fetcher for each egress of the region
fetcher      one fetch: redirects, limits, one deadline
robots       robots.txt
exchange     the fetch on its thread, and the watchdog that cuts it
guard        which addresses may be connected to
route        a connection straight to the target
proxy        a connection through a proxy
connection   kept connections, and how a request is written
answer       heads and framing of an answer
body         its body, received and unpacked
"""
