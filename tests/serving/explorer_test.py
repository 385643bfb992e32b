"""The explorer in a browser, against a server of a stand-in."""

import functools
import json
import re
import shutil
import urllib.request
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUERY = "red plush toy"
HOSTILE = "</script><img src=x onerror=alert(1)> <b>bold</b> 'ṩ' 👟 שלום {{ 7 * 7 }} \u2028"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH"),
]


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens addresses in windows of their own; at the end none may have complained."""
    pages, complaints, asked = [], [], []

    def window(path, *, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(600_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address + path)
        pages.append(page)
        settled(page)
        return page

    yield window
    for page in pages:
        page.context.close()
    assert not complaints
    assert all(url.startswith((address, "data:")) for url in asked)


def settled(page):
    page.wait_for_selector("#view[aria-busy='false']")
    page.wait_for_selector("[aria-busy='true']", state="detached")


def told(address, path, **asked):
    body = json.dumps(asked).encode() if asked else None
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{address}/api/{path}", data=body, headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def parameters(page):
    return {name: value for name, (value,) in parse_qs(urlsplit(page.url).query).items()}


def row(page, *codes):
    """The row of a tree at the end of a path of codes."""
    found = page.locator("[role='tree']")
    for code in codes:
        whole = re.compile(rf"(^|· ){code}$")
        items = found.locator(":scope > [role='treeitem'], :scope > ul > [role='treeitem']")
        found = items.filter(has=page.locator(":scope > .row > .sid", has_text=whole)).first
    return found


def test_a_search_shows_sids_items_and_what_dense_alone_says(opened, address):
    page = opened("/")
    page.fill("#query", QUERY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".items li")
    settled(page)
    assert parameters(page) == {"q": QUERY}
    assert page.title() == f"{QUERY} · SID explorer"
    sids = told(address, f"sids?query={quote(QUERY)}")["sids"]
    codes = [one["sid"] for one in sids]
    # Every node of the tree that the SIDs span, once.
    spanned = {tuple(sid[:level]) for sid in codes for level in (1, 2, 3)}
    assert page.locator("[role='treeitem']").count() == len(spanned)
    first = [one for one in sids if one["sid"][0] == codes[0][0]]
    mass = row(page, codes[0][0]).locator(":scope > .row .share").text_content()
    assert mass == f"{100 * sum(one['probability'] for one in first):.0f} %"
    ids = [
        item["item_id"]
        for item in told(address, f"candidates?query={quote(QUERY)}&most=30")["items"]
    ]
    scores = told(address, "score", query=QUERY, items=ids)["items"]
    shown = page.locator("details.item")
    assert shown.count() == 30
    best = max(scores, key=lambda item: item["probability"])
    figures = shown.first.locator(".figure").all_text_contents()
    assert figures == [f"{best['probability']:.3f}", f"{best['dense_only']:.3f}"]
    order = [float(text) for text in page.locator(".figure:not(.base)").all_text_contents()]
    assert order == sorted(order, reverse=True)
    said = page.locator("#status").text_content()
    assert said == f"{len(codes)} SIDs and 30 items"


def test_an_example_is_one_click_away(opened, address):
    page = opened("/")
    examples = told(address, "about")["examples"]
    links = page.locator("#examples a")
    assert links.all_text_contents() == examples
    links.first.click()
    page.wait_for_selector(".items li")
    assert parameters(page) == {"q": examples[0]}
    assert page.input_value("#query") == examples[0]
    page.go_back()
    page.wait_for_selector("h2:has-text('The tree')")


def test_a_question_waits_for_the_generator_and_a_late_answer_is_not_kept(opened, address):
    page = opened("/")
    sids = told(address, f"sids?query={quote(QUERY)}")
    asked = []

    def answer(route):
        asked.append(parse_qs(urlsplit(route.request.url).query))
        # The first time it is late, and says so once the page has shown that it waits.
        page.wait_for_selector(".working progress") if len(asked) == 1 else None
        late = {"source": "fallback", "sids": []}
        route.fulfill(json=late if len(asked) == 1 else sids)

    page.route("**/api/sids*", answer)
    page.fill("#query", QUERY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".absent")
    assert page.text_content(".absent").startswith("The generator has not answered")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role='treeitem']")
    assert [float(one["deadline_ms"][0]) >= 1000 for one in asked] == [True, True]


def test_without_examples_the_page_says_where_queries_are(browser, address):
    about = told(address, "about") | {"examples": []}
    page = browser.new_context().new_page()
    page.route("**/api/about*", lambda route: route.fulfill(json=about))
    page.goto(address)
    settled(page)
    assert page.text_content("#examples").startswith("Or open the tree below")
    assert page.locator("#examples a").count() == 0
    assert page.get_attribute("#query", "placeholder") == "Type what a shopper would type"
    page.context.close()


def test_an_item_opens_to_its_features(opened, address):
    page = opened(f"/?q={quote(QUERY)}")
    item = page.locator("details.item").nth(2)
    name = item.get_attribute("data-item")
    item.locator("summary").click()
    page.wait_for_url(re.compile("item="))
    assert parameters(page) == {"q": QUERY, "item": name}
    schema = told(address, "about")["features"]
    values = told(address, "score", query=QUERY, items=[name], features=True)["items"][0]
    rows = item.locator(".feature-table tbody tr")
    assert rows.locator(".name").all_text_contents() == [feature["name"] for feature in schema]
    assert rows.locator(".meaning").all_text_contents() == [feature["about"] for feature in schema]
    shown = [float(text) for text in rows.locator(".value").all_text_contents()]
    assert shown == pytest.approx(values["features"], rel=0.005)


def test_a_branch_opens_down_to_its_items_and_the_address_is_kept(opened, address):
    page = opened("/")
    path = []
    for _ in range(3):
        branches = told(address, f"tree?prefix={'.'.join(map(str, path))}")["branches"]
        path.append(branches[0]["code"])
        row(page, *path).locator(":scope > .row").click()
        row(page, *path).locator(":scope > ul > li").first.wait_for()
        assert parameters(page) == {"tree": ".".join(map(str, path))}
        below = row(page, *path).locator(":scope > ul > li")
        about = row(page, *path).locator(":scope > .row").text_content()
        count = branches[0]["items"]
        assert f"{count} item{'s' * (count > 1)}" in about
        assert f"{100 * branches[0]['purity']:.0f} % " in about
    titles = [
        item["title"] for item in told(address, f"items?prefix={'.'.join(map(str, path))}")["items"]
    ]
    assert below.locator(".title").all_text_contents() == titles
    shared = opened(urlsplit(page.url).path + "?" + urlsplit(page.url).query)
    for window in (page, shared):
        window.reload()
        settled(window)
        assert row(window, *path).get_attribute("aria-selected") == "true"
        assert row(window, *path).locator(":scope > ul > li .title").all_text_contents() == titles
    page.go_back()
    settled(page)
    assert row(page, *path[:2]).get_attribute("aria-selected") == "true"


def test_a_shared_address_shows_the_same_sid_and_item(opened, address):
    page = opened(f"/?q={quote(QUERY)}")
    sid = told(address, f"sids?query={quote(QUERY)}")["sids"][0]["sid"]
    row(page, *sid[:2]).locator(":scope > .row").click()
    page.wait_for_selector(".items > .note .sid")
    settled(page)
    page.locator("details.item summary").first.click()
    page.wait_for_url(re.compile("item="))
    assert parameters(page)["sid"] == "{}.{}".format(*sid)
    titles = page.locator("details.item .what .name").all_text_contents()
    prefix = "{}.{}".format(*sid)
    below = told(address, f"items?prefix={prefix}&most=30")["items"]
    assert sorted(titles) == sorted(item["title"] for item in below)
    shared = opened("/?" + urlsplit(page.url).query)
    shared.reload()
    settled(shared)
    assert shared.locator("details.item .what .name").all_text_contents() == titles
    assert shared.locator("details[open]").get_attribute("data-item") == parameters(page)["item"]
    assert row(shared, *sid[:2]).get_attribute("aria-selected") == "true"
    page.go_back()
    settled(page)
    assert parameters(page) == {"q": QUERY} and page.locator("details.item").count() == 30


def test_everything_can_be_done_from_the_keyboard(opened):
    page = opened("/")
    press = page.keyboard.press

    def focused(what):
        return page.evaluate(f"document.activeElement.{what}")

    while focused("id") != "query":
        press("Tab")
    page.keyboard.type(QUERY)
    press("Enter")
    page.wait_for_selector(".items li")
    settled(page)
    while focused("role") != "treeitem":
        press("Tab")
    assert page.locator("[role='treeitem'][tabindex='0']").count() == 1
    outline = "getComputedStyle(document.activeElement.querySelector('.row')).outlineStyle"
    assert page.evaluate(outline) == "solid"
    assert (focused("ariaLevel"), focused("ariaExpanded")) == ("1", "true")
    levels = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        press(key)
        levels.append((focused("ariaLevel"), focused("ariaExpanded")))
    assert levels == [("2", "true"), ("3", "false"), ("3", "true")]
    press("ArrowDown")
    assert (focused("ariaLevel"), focused("ariaExpanded")) == ("4", None)  # an item
    press("ArrowLeft")
    press("ArrowLeft")
    assert (focused("ariaLevel"), focused("ariaExpanded")) == ("3", "false")
    press("Enter")
    page.wait_for_url(re.compile(r"sid=\d+\.\d+\.\d+$"))
    assert focused("ariaSelected") == "true"
    settled(page)
    press("End")
    press("Home")
    assert (focused("ariaLevel"), focused("parentElement.role")) == ("1", "tree")
    while focused("tagName") != "SUMMARY":
        press("Tab")
    press("Enter")
    page.wait_for_selector("details[open] .feature-table")
    while "tree=" not in (focused("href") or ""):
        press("Tab")
    press("Enter")
    page.wait_for_selector("h2:has-text('The tree')")
    settled(page)
    assert page.locator("[role='treeitem'][aria-selected='true']").count() == 1


@pytest.mark.parametrize("path", ["/", "/?tree=35.24", f"/?q={quote(QUERY)}", "item"])
def test_a_phone_is_wide_enough(opened, address, path):
    if path == "item":
        found = told(address, f"candidates?query={quote(QUERY)}&most=1")["items"]
        path = f"/?q={quote(QUERY)}&item={found[0]['item_id']}"
    page = opened(path, width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    cut = """[...document.querySelectorAll("#view *")].filter((element) =>
        element.getBoundingClientRect().right > 361).length"""
    assert page.evaluate(cut) == 0


CONTRAST = """() => {
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((value) => channel(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
  };
  const has = (element) => [...element.childNodes].some((node) => node.data?.trim());
  const seen = (element) => element.checkVisibility() && has(element);
  const texts = [...document.body.querySelectorAll("*")].filter(seen);
  return Math.min(...texts.map((element) => {
    const pair = [getComputedStyle(element).color, behind(element)].map(luminance);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  }));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(opened, scheme):
    papers = []
    for path in ("/", f"/?q={quote(QUERY)}"):
        page = opened(path, scheme=scheme)
        assert page.evaluate(CONTRAST) >= 4.5
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (min(map(int, re.findall(r"\d+", papers[0]))) > 127) == (scheme == "light")


def fulfil(answer, route):
    route.fulfill(json=answer)


def test_texts_of_the_shop_stay_text(opened, browser, address):
    page = opened("/")
    branch = {"code": 7, "items": 1, "category": None, "purity": None, "titles": [HOSTILE]}
    item = {"item_id": "x", "title": HOSTILE, "sid": [7, 7, 7], "attributes": {"brand": HOSTILE}}
    score = {"item_id": "x", "probability": 0.5, "dense_only": None, "features": [None] * 5}
    for path, answer in {
        "tree": {"branches": [branch]},
        "items": {"items": [item]},
        "candidates": {"items": [item]},
        "sids": {"source": "live", "sids": [{"sid": [7, 7, 7], "probability": 1}]},
        "score": {"source": "live", "items": [score], "unknown": []},
    }.items():
        page.route(f"**/api/{path}*", functools.partial(fulfil, answer))
    page.reload()
    settled(page)
    assert page.locator(".titles").first.text_content() == HOSTILE
    page.fill("#query", HOSTILE)
    page.keyboard.press("Enter")
    page.wait_for_selector(".items li")
    settled(page)
    page.locator("details.item summary").click()
    page.wait_for_selector(".feature-table")
    assert page.locator("details.item .name").first.text_content() == HOSTILE
    assert page.locator("img, b, script:not([src])").count() == 0
    assert page.locator("details.item .figure").all_text_contents() == ["0.500"]


def test_a_shared_sid_that_is_gone_leaves_the_rest_of_the_page(browser, address):
    page = browser.new_context().new_page()
    page.goto(f"{address}/?q={quote(QUERY)}&sid=61.46.3")
    page.wait_for_selector(".items [role='alert']")
    assert "no item has the prefix 61.46.3" in page.text_content(".items [role='alert']")
    assert page.locator("[role='treeitem']").count() > 3
    page.context.close()


def test_a_branch_that_does_not_come_is_asked_for_again(browser, address):
    page = browser.new_context().new_page()
    page.goto(address)
    branch = page.locator("[role='treeitem']").first
    branch.wait_for()
    page.route("**/api/tree?*", lambda route: route.abort())
    page.keyboard.press("Tab")
    branch.focus()
    for key, text in (("ArrowRight", "The server does not answer."), ("ArrowLeft", None)):
        page.keyboard.press(key)
        if text:
            branch.locator(".title", has_text=text).wait_for()
    page.unroute("**/api/tree?*")
    page.keyboard.press("ArrowRight")
    branch.locator("[role='treeitem'] .sid").first.wait_for()
    page.context.close()


def test_trouble_is_told_and_can_be_tried_again(browser, address):
    page = browser.new_context().new_page()
    page.route("**/api/sids*", lambda route: route.abort())
    page.goto(f"{address}/?q=toy")
    page.wait_for_selector("[role='alert']")
    assert "The server does not answer." in page.locator("[role='alert']").text_content()
    page.unroute("**/api/sids*")
    page.click("[role='alert'] button")
    page.wait_for_selector(".items li")
    page.context.close()
