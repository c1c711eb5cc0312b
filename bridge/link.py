"""A link that knows which Redis process it is connected to. A batch that another process took may be lost."""

import redis

from regions import link
from regions.link import Command

__all__ = ["Command", "Link"]


class Link(link.Link):
    """``run_id`` identifies the Redis process: each start gives a new one."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        try:
            fields = dict(line.split(b":", 1) for line in self.one("INFO", "server").splitlines() if b":" in line)
        except redis.exceptions.ResponseError:
            self.close()
            raise
        self.run_id = fields[b"run_id"].decode()
