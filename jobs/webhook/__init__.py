"""Calls webhooks: tells clients that their requests have ended. It runs on the hub, since it needs what the hub keeps.

    sender      the process: claims jobs, and calls on its threads
    places      which of its jobs may be called now
    queue       RQ's queue on the hub's Redis: claims, and how calls ended
    call        one call: signed, guarded, bounded

``run`` is the function that jobs name on the wire, so that RQ's tools show it. Only ``nearfetch webhooks`` runs such jobs.
"""

from typing import NoReturn


def run(request: str) -> NoReturn:
    """Raises RuntimeError: only a stock RQ worker calls this, and it has neither the address nor the secret."""
    raise RuntimeError(f"expected nearfetch webhooks, found RQ's own worker: the webhook of request {request}")
