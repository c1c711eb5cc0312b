"""What a document store's process is forked from: it has the imports, and its storage engine has measured the processor's clock.

Both take half a second of CPU.
"""

import tempfile

import secantus.cli
import wiredtiger

__all__ = ["secantus"]

with tempfile.TemporaryDirectory() as folder:
    wiredtiger.wiredtiger_open(folder, "create").close()
