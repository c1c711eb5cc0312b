"""The owner of a call: a tenant and a key."""

from msgspec import Struct


class Owner(Struct, frozen=True):
    """The tenant of a call, and the id of its key; both are empty at an open gateway, which everybody may use for everything."""

    tenant: str = ""
    key: str = ""
    sees_all: bool = True

    def may_see(self, tenant: str) -> bool:
        """Whether it may know of what belongs to a tenant."""
        return self.sees_all or self.tenant == tenant


EVERYBODY = Owner()
