"""A call of a script whose answer is lost may have taken effect."""

import functools
from types import SimpleNamespace

import pytest

from jobs.webhook import queue as jobs_queue
from jobs.webhook.queue import open_queue
from regions import connect, names
from tests.service.hub_parts import settings
from web.api import views
from web.flow.webhooks import Webhooks
from web.hub import scripts, webhooks
from web.hub.redis import Hub

pytestmark = pytest.mark.usefixtures("patient_clients")
LOST = scripts.TAKE_WEBHOOKS, scripts.ENQUEUE_WEBHOOKS, scripts.RESEND_WEBHOOK


def lossy(site, far_hub):
    """The same, by a link that loses answers."""
    message = functools.partial(views.webhook_message, base="")
    found = settings(site.folder, redis=far_hub.url, **site.environ)
    hub = Hub(found)
    hub.run_once()
    for script in (*LOST, jobs_queue.CLAIM, jobs_queue.ENDED):
        site.client.script_load(script.text)  # else what is lost is the answer that it is not known
    return SimpleNamespace(
        webhooks=Webhooks(found, hub, message), queue=open_queue(far_hub.url, "test-far", 60_000, 1.0, 2), hub=hub
    )


def test_a_take_whose_answer_is_lost_is_made_good_after_its_lease(site, far_hub, receiver):
    far = lossy(site, far_hub)
    request = site.end(receiver.url)
    far_hub.lose(scripts.TAKE_WEBHOOKS)
    far.webhooks._turn()
    assert far_hub.lost == 1
    assert site.client.llen(names.rq_queue(names.WEBHOOK_QUEUE)) == 0
    site.hurry(request)
    assert site.enqueue() == 1
    assert site.client.llen(names.rq_queue(names.WEBHOOK_QUEUE)) == 1
    far.hub.stop()


def test_a_job_whose_making_had_no_answer_is_made_once(site, far_hub, receiver):
    far = lossy(site, far_hub)
    request = site.end(receiver.url)
    far_hub.lose(scripts.ENQUEUE_WEBHOOKS)
    far.webhooks._turn()
    assert far_hub.lost == 1
    site.hurry(request)
    site.enqueue()
    assert site.client.lrange(names.rq_queue(names.WEBHOOK_QUEUE), 0, -1) == [request.encode()]
    far.hub.stop()


def test_a_claim_whose_answer_is_lost_is_made_again_after_its_lease(site, far_hub, receiver):
    far = lossy(site, far_hub)
    request = site.end(receiver.url)
    site.enqueue()
    far_hub.lose(jobs_queue.CLAIM)
    with pytest.raises(connect.AWAY):
        far.queue.claim(1)
    assert far_hub.lost == 1
    site.hurry(request)
    site.send()
    assert site.until(request, "delivered").attempts == 1
    assert len(receiver.got) == 1
    assert site.client.zcard(names.rq_registry("wip", names.WEBHOOK_QUEUE)) == 0
    far.hub.stop()


def test_an_end_whose_answer_is_lost_may_be_said_again(site, far_hub):
    far = lossy(site, far_hub)
    request = site.end("http://127.0.0.1:9/hook")
    site.enqueue()
    (job,) = far.queue.claim(1)
    far_hub.lose(jobs_queue.ENDED)
    with pytest.raises(connect.AWAY):
        far.queue.ended(job, "again", status=500, error="x", wait_seconds=60)
    assert far_hub.lost == 1
    assert far.queue.ended(job, "again", status=500, error="x", wait_seconds=60) == ""  # it counted the first time
    found = site.state(request)
    assert (found.state, found.attempts, found.status) == ("due", 1, 500)
    far.hub.stop()


def test_a_resend_whose_answer_is_lost_may_be_asked_again(site, far_hub, receiver):
    request = site.end(receiver.url)
    site.send()
    site.until(request, "delivered")
    site.client.script_load(scripts.RESEND_WEBHOOK.text)
    far_hub.lose(scripts.RESEND_WEBHOOK)
    with pytest.raises(connect.AWAY):
        webhooks.resend(far_hub.client, request, 60)
    assert far_hub.lost == 1
    assert webhooks.resend(far_hub.client, request, 60)
    assert site.until(request, "delivered").attempts == 2
    assert receiver.ids() == [f"msg_{request}"] * 2
