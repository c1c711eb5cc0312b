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
            lines = self.one("INFO", "server").splitlines()
        except redis.exceptions.ResponseError:
            self.close()
            raise
        found = next(line for line in lines if line.startswith(b"run_id:"))
        self.run_id = found.removeprefix(b"run_id:").decode()
