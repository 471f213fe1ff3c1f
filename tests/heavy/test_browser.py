"""The stories of people who look at sessions, in a real browser; and that everybody can use the pages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from aggregator.client import Client, Query
from tests.embedded.test_demo import read_until, running
from tests.heavy.conftest import Many, in_a_thread
from tests.redis_servers import RedisServer, redis_servers_available
from tests.web.shop import FAILED, grow, stock, web

CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
AXE: Final = "axe-core@4.14.1"
ROOT: Final = Path(__file__).parents[2]
PICTURES: Final = ROOT / "docs" / "pictures"
DESKTOP: Final = {"viewport": {"width": 1360, "height": 850}}
PHONE: Final = {"viewport": {"width": 390, "height": 844}}

AXE_PATHS: Final = (
    "/?sort=cost",
    "/?search=nowhere",
    "/session?project=travel&id=runaway-agent",
    "/project?project=travel",
    "/session?project=a&id=b",
)

pytestmark = [pytest.mark.timeout(300)]
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def redis_place() -> Iterator[RedisServer]:
    server = RedisServer(next(iter(redis_servers_available().values())))
    in_a_thread(stock(server.url))
    yield server
    server.remove()


@pytest.fixture(scope="module")
def at(redis_place: RedisServer) -> Iterator[str]:
    with web(redis_place.url) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose console must stay empty: no error, nothing that the policy had to block."""
    yield from watched(browser, DESKTOP)


def watched(browser: Browser, options: dict[str, Any]) -> Iterator[Page]:
    context = browser.new_context(**options)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert said == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The text of axe-core, from npm."""
    directory = ROOT / ".cache" / "npm"
    found = directory / "node_modules" / "axe-core" / "axe.min.js"
    if not found.exists():
        subprocess.run(["npm", "install", "--silent", "--ignore-scripts", "--prefix", directory, AXE], check=True)
    return found.read_text(encoding="utf-8")


def first_row(page: Page) -> Any:
    return page.locator("#results tbody tr").first


def test_find_the_dearest_open_session_see_which_trace_failed_and_go_there(page: Page, at: str) -> None:
    page.goto(at)
    page.get_by_label("Project").select_option("travel")
    page.wait_for_url("**project=travel**")
    page.get_by_label("Status").select_option("open")
    page.wait_for_url("**status=open**")
    page.locator("#sort-cost").click()
    page.wait_for_url("**sort=cost**")
    expect(page.locator("th[aria-sort=descending]")).to_have_text("cost")
    expect(first_row(page)).to_contain_text("runaway-agent")
    page.get_by_role("link", name="runaway-agent").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("runaway-agent")
    failed = page.locator("tr.failed")
    expect(failed).to_have_count(1)
    expect(failed.locator("th")).to_have_text("search flights")
    link = failed.get_by_role("link", name="Open trace")
    expect(link).to_have_attribute("href", f"https://jaeger.example/trace/{FAILED}?session=runaway-agent")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(page.locator("#models + .scroll")).to_contain_text("gpt-4o")
    page.context.route("https://jaeger.example/**", lambda route: route.fulfill(body="the trace backend"))
    with page.context.expect_page() as opened:
        link.click()
    expect(opened.value.locator("body")).to_have_text("the trace backend")
    assert opened.value.url == f"https://jaeger.example/trace/{FAILED}?session=runaway-agent"


def test_find_all_sessions_of_a_user(page: Page, at: str, redis_place: RedisServer) -> None:
    page.goto(f"{at}/?search=runaway")
    expect(page.locator("#results tbody tr")).to_have_count(1)
    first_row(page).get_by_role("link", name="grace").click()
    page.wait_for_url("**user=grace**")
    users = page.locator("#results tbody td[data-label=user]")
    expect(users.first).to_have_text("grace")
    assert set(users.all_inner_texts()) == {"grace"}
    shown = page.locator("#results tbody th > a:first-child").all_inner_texts()
    assert shown == in_a_thread(sessions_of_grace(redis_place.url))
    assert len(shown) > 5


async def sessions_of_grace(url: str) -> list[str]:
    async with Client(url) as client:
        return [one.session_id async for one in client.all(Query(project="travel", user="grace"))]


def test_watch_a_running_session_grow(page: Page, at: str, redis_place: RedisServer) -> None:
    page.goto(f"{at}/session?project=travel&id=runaway-agent")
    rows = page.locator("#traces + .scroll tbody tr")
    before = rows.count()
    in_a_thread(grow(redis_place.url, 91_000))
    expect(rows).to_have_count(before + 1)
    page.goto(f"{at}/?project=travel&sort=traces")
    expect(first_row(page).locator("[data-label=traces]")).to_have_text(str(before + 1))
    in_a_thread(grow(redis_place.url, 91_001))
    expect(first_row(page).locator("[data-label=traces]")).to_have_text(str(before + 2))


def test_typing_finds_and_the_address_holds_what_is_shown(page: Page, at: str) -> None:
    page.goto(at)
    page.get_by_label("Find").fill("chat-011")  # at once: each pause of one who types is a step to go back
    page.wait_for_url("**search=chat-011**")
    expect(page.locator("#results tbody tr")).to_have_count(10)
    shown = page.locator("#results tbody th").all_inner_texts()
    page.reload()
    assert page.locator("#results tbody th").all_inner_texts() == shown
    expect(page.get_by_label("Find")).to_have_value("chat-011")
    page.go_back()
    expect(page.locator("#results .found")).to_have_text("121 sessions")


def test_pages_follow_each_other(page: Page, at: str) -> None:
    page.goto(f"{at}/?limit=50&sort=duration")
    seen: list[str] = []
    while True:
        seen += page.locator("#results tbody th > a:first-child").all_inner_texts()
        following = page.get_by_role("link", name="Next page")
        if not following.count():
            break
        to = following.get_attribute("href")
        following.click()
        page.wait_for_url(f"**{to}")
        expect(page.locator(".found")).to_contain_text("further on")
    assert len(seen) == len(set(seen)) == 121
    page.get_by_role("link", name="First page").click()
    expect(page.locator("#results .found")).to_have_text("121 sessions")


def test_the_keyboard_is_enough(page: Page, at: str) -> None:
    page.goto(at)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator("#sort-cost").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**sort=cost**")
    first_row(page).get_by_role("link").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("runaway-agent")


def test_a_project_has_its_figures_and_charts(page: Page, at: str) -> None:
    page.goto(f"{at}/project?project=travel")
    expect(page.locator(".u-wrap canvas")).to_have_count(3)
    expect(page.locator("#dearest + .scroll tbody tr")).to_have_count(10)
    expect(page.locator("#dearest + .scroll tbody tr").first).to_contain_text("runaway-agent")
    page.get_by_text("The charts as a table").click()
    expect(page.get_by_role("cell", name="$5", exact=False).first).to_be_visible()


def test_without_scripts_everything_is_there(browser: Browser, at: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(at)
    page.get_by_label("Sort by").select_option("cost")
    page.get_by_role("button", name="Show").click()
    expect(first_row(page)).to_contain_text("runaway-agent")
    page.goto(f"{at}/project?project=travel")
    page.get_by_role("link", name="Open without scripts").click()
    expect(page.locator("#totals")).to_contain_text("median duration")
    context.close()


def test_nothing_found_and_nothing_there_say_what_to_do(page: Page, at: str) -> None:
    page.goto(f"{at}/?search=nowhere")
    expect(page.locator(".empty")).to_contain_text("Show all sessions")
    page.goto(f"{at}/project?project=nobody")
    expect(page.locator(".empty")).to_contain_text("no sessions in this project")


def test_what_is_wrong_is_told_on_a_page(browser: Browser, at: str) -> None:
    page = browser.new_page()  # its console tells of the 404
    page.goto(f"{at}/session?project=travel&id=none")
    expect(page.locator(".note")).to_contain_text("no such session")
    page.goto(f"{at}/?sort=beauty")
    expect(page.locator(".note")).to_contain_text("sort")
    page.close()


@pytest.mark.parametrize("path", AXE_PATHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(
    browser: Browser, at: str, axe: str, path: str, scheme: str, size: dict[str, Any]
) -> None:
    context = browser.new_context(color_scheme=scheme, **size)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(at + path)
    if path.startswith("/project"):
        page.wait_for_selector(".u-wrap canvas")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    told = [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in found["violations"]]
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert told == []
    assert wide == 0


def test_pictures(browser: Browser, tmp_path: Path) -> None:
    """Of the demo's traffic: those of the README with PICTURES=1, else sooner and where nobody keeps them."""
    keep = bool(os.environ.get("PICTURES"))
    directory = PICTURES if keep else tmp_path
    with running("seconds=None, http_port=0", tmp_path) as demo:
        address = re.search(r"See the sessions at (http://\S+)/ ", read_until(demo, "See the sessions at"))
        assert address
        read_until(demo, r"^open    [1-9]")
        draining = threading.Thread(target=demo.communicate, daemon=True)
        draining.start()
        time.sleep(100 if keep else 10)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        for name, path in paths_of_the_demo(page, address[1]).items():
            page.goto(address[1] + path)
            if name == "project":
                page.wait_for_selector(".u-wrap canvas")
            page.screenshot(path=directory / f"{name}.png")
            assert 20_000 < (directory / f"{name}.png").stat().st_size < 150_000
        page.close()
        demo.send_signal(signal.SIGINT)
        draining.join(timeout=60)
        assert demo.returncode == 0


def paths_of_the_demo(page: Page, address: str) -> dict[str, str]:
    """The dearest sessions, the longest one of them that has an error, and its project."""
    found = page.request.get(f"{address}/api/v1/sessions?sort=traces&limit=200").json()["sessions"]
    session = next(one for one in found if one["error_count"])
    return {
        "sessions": "/?sort=cost",
        "session": f"/session?project={session['project']}&id={session['session_id']}",
        "project": f"/project?project={session['project']}",
    }


@pytest.mark.timeout(600)
def test_a_page_of_a_hundred_thousand_sessions_takes_less_than_100_ms(many: Many) -> None:
    """By the CPU time of the server's process and of Redis, which a busy machine does not stretch as much."""
    import httpx

    with web(many.url) as address, httpx.Client(base_url=address) as client:
        took: dict[str, list[float]] = {}
        for _ in range(5):
            for path in ("/", "/?project=demo&sort=cost", "/?project=demo&user=ada", "/?status=open&sort=errors"):
                answer = client.get(path)
                assert answer.status_code == 200
                took.setdefault(path, []).append(float(answer.headers["server-timing"].partition("dur=")[2]))
    middle = {path: sorted(times)[2] for path, times in took.items()}
    print(middle)
    assert max(middle.values()) < 100
