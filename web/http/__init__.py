"""HTTP: from bytes on a socket to a request, and from an answer back to bytes.

inlet, receive     accept connections and collect requests until they are whole
server             cheroot, changed so that a connection can wait without a thread
exchange, outlet   one request and its answer; sends what a full socket did not take
quota              how many bytes may be held for clients
problems           problem documents (RFC 9457)
markup             HTML that is escaped as it is made
"""
