"""An operator at a region's rq-dashboard, with a real browser: a failed job is asked again, and its result comes home."""

import base64
import tomllib

from playwright.sync_api import expect

from tests.waiting import until
from tests.wire import ask

REGION = "sin"
FORM = """<!DOCTYPE html><title>Win a prize</title>
<form method="post" action="%s/job/%s/delete" id="prize"><button>Win</button></form><script>document.getElementById("prize").submit()</script>"""


def own(stack) -> dict:
    """The dashboard's settings."""
    return tomllib.loads((stack.data / "regions" / f"{REGION}.toml").read_text())["dashboard"]


def result(stack) -> dict | None:
    """What a task of the region brought; nothing where a busy machine has refused it."""
    return ask(stack.port, "GET", "/v1/sources/slow.example/records").json().get("result")


def signed_in(tab, user: str, password: str) -> None:
    tab.context.set_extra_http_headers(
        {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    )


def test_a_page_of_another_site_presses_no_button(stack, inside, browser):
    """Though the browser of a signed-in operator sends the password along with what that page makes it send."""
    inside.behave(prefix="/slow.example/", status=404)
    failed = until(lambda: result(stack), "a result")
    inside.behave()
    dashboard = own(stack)
    origin = f"http://127.0.0.1:{dashboard['port']}"
    with browser.tab(origin) as tab:
        page = FORM % (origin, failed["task"])
        tab.context.route("http://prize.example/", lambda route: route.fulfill(body=page, content_type="text/html"))
        signed_in(tab, "operator", dashboard["operator_password"])
        with tab.page.expect_response(lambda answer: answer.url.endswith("/delete")) as answered:
            tab.page.goto("http://prize.example/")
        assert answered.value.status == 403
        tab.asked.clear()
        tab.expected = ("403",)
        tab.open(f"/0/view/job/{failed['task']}")
        expect(tab.page.locator("#job-data")).to_contain_text("failed")


def test_a_failed_job_is_asked_again_by_a_button_and_its_result_comes_home(stack, inside, browser):
    """By the operator alone: the other user sees the job and no button. The job's task stays failed, as its client was told."""
    inside.behave(prefix="/slow.example/", status=404)
    failed = until(lambda: result(stack), "a result")
    inside.behave()
    dashboard = own(stack)
    origin, path = f"http://127.0.0.1:{dashboard['port']}", f"/0/view/jobs/{REGION}/failed/200/dsc/1"
    with browser.tab(origin) as tab:
        signed_in(tab, dashboard["user"], dashboard["password"])
        tab.open(path)
        row = tab.page.locator(f'tr[data-job-id="{failed["task"]}"]')
        expect(row).to_contain_text("slow.example {}  request ")
        expect(row.get_by_text("Requeue")).to_be_hidden()
        expect(row.get_by_text("Delete")).to_be_hidden()
    with browser.tab(origin) as tab:
        signed_in(tab, "operator", dashboard["operator_password"])
        tab.open(path)
        row = tab.page.locator(f'tr[data-job-id="{failed["task"]}"]')
        row.get_by_text("Requeue").click()
        expect(tab.page.get_by_role("status")).to_contain_text("Asked again as request ")
        link = tab.page.get_by_role("link", name="Its result").get_attribute("href")
        expect(row).to_have_count(0)
        base, _, request = link.rpartition("/")
        assert base == f"{stack.url}/requests"

        def done() -> dict:
            found = stack.get(f"/v1/requests/{request}?wait=20")
            return found if found["done"] else {}

        found = until(done, "the request to be done", 120.0)
        assert (found["status"], found["results"][0]["count"] > 0) == ("succeeded", True)
        assert found["attrs"]["retry_of"]["task"] == failed["task"]
        tab.open(f"/0/view/job/{found['tasks'][0]['id']}")
        expect(tab.page.locator("#job-data")).to_contain_text("finished")
        assert stack.get(f"/v1/requests/{found['attrs']['retry_of']['request']}")["status"] == "failed"
