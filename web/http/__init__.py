"""HTTP: from bytes on a socket to a request, and from an answer back to bytes.

inlet, receive             accept connections and collect requests until they are whole
server                     cheroot, changed so that a connection can wait without a thread
exchange, answer, outlet   one request and its answer; sends what a full socket did not take
coding                     compresses answers
quota                      how many bytes may be held for clients
owner, trace               the key and tenant of a call; its ``traceparent``
problems                   problem documents (RFC 9457)
markup                     HTML that is escaped as it is made
"""
