"""What an operator does on the page of the admin listener, in Chromium.

Reads one JSON object from stdin:

    chromium      the path of the browser
    admin         the address of the admin listener, such as "http://127.0.0.1:8002"
    key           a key with the verb admin; null or missing if the host has no access rules
    folder        the folder of hostler.toml, whose [reload] mode is "manual"
    pictures      a folder for pictures of the page, or null
    model         a model with its own table in the manifest, and model_data, an input of it
    model_wrong   an input that the host refuses for this model
    pipeline      a model that is a pipeline, and pipeline_data; pipeline_name if its name is another
    plugin        a plugin that logs, plugin_model, a model that uses it, and plugin_data, an input
    plugin_parameters  parameters of that request, if it needs any
    plugin_line   a part of what the plugin then logs, with markup that must not take effect
    job_model     a model with jobs. With `public`, the address of the public listener, one is
                  submitted with job_data; otherwise there must be one already

With `models` and `reloads`, only their numbers are checked, and how much a poll changes.

Prints a line for each thing done, and ends with an error at the first that fails.
"""

import json
import os
import re
import sys
import urllib.request

from playwright.sync_api import expect, sync_playwright

TIMEOUT = 60_000
CONFIG = json.load(sys.stdin)
PAGE = CONFIG["admin"].rstrip("/") + "/ui/"
MANIFEST = os.path.join(CONFIG["folder"], "hostler.toml")
DESKTOP = {"width": 1200, "height": 800}
PHONE = {"width": 360, "height": 780}
# Chromium reports each answer with a status of 400 and more. The script causes some on purpose.
EXPECTED = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")

complaints = []
expect.set_options(timeout=TIMEOUT)


def listen(page):
    page.set_default_timeout(TIMEOUT)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda message: heard(message.type, message.text))
    return page


def heard(kind, text):
    if kind in ("error", "warning") and not EXPECTED.match(text):
        complaints.append(f"console {kind}: {text}")


def check(what, condition):
    if not condition:
        raise SystemExit(f"not so: {what}")


def heading(page, name):
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()


def visit(page, name):
    page.get_by_role("navigation", name="Views").get_by_role("link", name=name, exact=True).click()
    heading(page, name)


def result(page):
    return page.get_by_role("status")


def number(text):
    return int(re.sub(r"\D", "", text) or -1)


def picture(page, name):
    if CONFIG.get("pictures"):
        page.screenshot(path=os.path.join(CONFIG["pictures"], f"{name}.png"))


def model_row(page, model):
    row = page.get_by_role("table", name="Models").get_by_role("row")
    return row.filter(has=page.get_by_role("link", name=model, exact=True)).first


def requests_of(page, model):
    return number(model_row(page, model).locator("[data-label=Requests]").inner_text())


def predict(page, model, data, parameters=None):
    """Sends one request by the form, and returns the answer of the host."""
    visit(page, "Predict")
    page.get_by_label("Model").fill(model)
    expect(page.get_by_role("table", name="Inputs and outputs").or_(page.get_by_text("names no inputs"))).to_be_visible()
    page.get_by_label("Data, as JSON").fill(json.dumps(data))
    if parameters:
        page.get_by_label("Parameters, as JSON").fill(json.dumps(parameters))
    with page.expect_response(lambda response: response.url.endswith("/api/predict")) as answered:
        page.get_by_role("button", name="Send").click()
    return answered.value


def answer(page):
    return page.get_by_role("region", name="Answer")


def sign_in(page):
    """1. A wrong key is refused, and the right one is accepted."""
    page.goto(PAGE)
    if not CONFIG.get("key"):
        heading(page, "Serving")
        return
    heading(page, "Sign in")
    page.get_by_label("API key or token").fill("hostler_" + "a" * 43)
    page.get_by_role("button", name="Sign in").click()
    expect(result(page)).to_contain_text("Not signed in")
    check("no table without a key", page.get_by_role("table").count() == 0)
    page.get_by_label("API key or token").fill(CONFIG["key"])
    page.get_by_role("button", name="Sign in").click()
    heading(page, "Serving")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def serving(page):
    """2. Executors, models and plugins are there, and a prediction is counted."""
    for name in ("Executors", "Models", "Plugins"):
        expect(page.get_by_role("table", name=name).get_by_role("row").nth(1)).to_be_visible()
    expect(page.get_by_role("meter").first).to_be_visible()
    model = CONFIG["model"]
    before = requests_of(page, model)
    reply = predict(page, model, CONFIG["model_data"])
    check(f"{model} answers", reply.status == 200)
    expect(answer(page)).to_contain_text("in the host")
    visit(page, "Serving")
    rows = page.get_by_role("table", name="Models").locator("tbody tr")
    everything = rows.count()
    page.get_by_label("Filter").fill(model)
    # The last of the rows is gone.
    expect(rows.nth(everything - 1)).to_have_count(0)
    page.wait_for_function(
        """([model, before]) => [...document.querySelectorAll("table.models tbody tr")].some((row) =>
            row.querySelector("a").textContent === model &&
            Number(row.querySelector("[data-label=Requests]").textContent.replaceAll(",", "")) > before)""",
        arg=[model, before],
    )
    page.get_by_label("Filter").fill("")
    expect(page.get_by_text("cover the last")).to_be_visible()
    picture(page, "serving-light")


def pipeline_steps(page):
    """3. A prediction with a pipeline shows its steps."""
    reply = predict(page, CONFIG["pipeline"], CONFIG["pipeline_data"])
    steps = reply.json()["steps"]
    check("the pipeline has steps", len(steps) > 0)
    table = page.get_by_role("table", name="Steps of the pipeline")
    for step in steps:
        row = table.get_by_role("row").filter(has=page.get_by_role("rowheader", name=re.compile(f"^{re.escape(step['step'])}")))
        expect(row.first).to_contain_text(step["outcome"])
    picture(page, "predict-light")


def wrong_input(page):
    """4. A wrong input shows the words of the host."""
    reply = predict(page, CONFIG["model"], CONFIG["model_wrong"])
    check("the input is refused", reply.status >= 400)
    expect(answer(page)).to_contain_text(reply.json()["error"]["message"])
    expect(answer(page)).to_contain_text(str(reply.status))


def read_manifest():
    with open(MANIFEST, encoding="utf-8") as file:
        return file.read()


def write_manifest(text):
    with open(MANIFEST, "w", encoding="utf-8") as file:
        file.write(text)


def with_key(text, key, value):
    """The manifest with a key in the table of the model."""
    name = re.escape(CONFIG["model"])
    table = re.search(rf'^\[models\."?{name}(:[^"\]]*)?"?\]\n((?!\[).*\n?)*', text, re.MULTILINE)
    check(f"the manifest has a table of {CONFIG['model']}", table is not None)
    head, rest = table.group(0).split("\n", 1)
    rest = re.sub(rf"^{key} *=.*\n", "", rest, flags=re.MULTILINE)
    return f"{text[: table.start()]}{head}\n{key} = {value}\n{rest}{text[table.end() :]}"


def live(page):
    item = page.get_by_role("list", name="Generations").locator("li.live")
    expect(item).to_be_visible()
    return number(item.locator(".ordinal").inner_text())


def wait_for_live(page, generation):
    expect(page.get_by_role("list", name="Generations").locator("li.live")).to_contain_text(f"Generation {generation}")


def press(page, name, outcome):
    page.get_by_role("button", name=name, exact=True).click()
    expect(result(page)).to_contain_text(outcome)


def reload(page):
    """5. A changed file: a dry run would apply it, and a reload does."""
    visit(page, "Generations")
    before = live(page)
    write_manifest(with_key(read_manifest(), "timeout_ms", 4321))
    press(page, "Dry run", "would apply")
    expect(result(page)).to_contain_text("timeout_ms")
    check("a dry run changes nothing", live(page) == before)
    press(page, "Reload", "applied")
    expect(result(page)).to_contain_text("4321")
    wait_for_live(page, before + 1)
    newest = page.get_by_role("list", name="Reloads, newest first").locator("> li").first
    expect(newest).to_contain_text(f"generation {before + 1}")
    newest.locator("summary").click()
    expect(newest.locator(".changes")).to_contain_text("timeout_ms")
    picture(page, "generations-light")


def rejected(page):
    """6. A faulty manifest is rejected with its reason, and every view says that it is stale."""
    good = read_manifest()
    write_manifest(with_key(good, "faulty", 1))
    press(page, "Reload", "rejected")
    expect(result(page)).to_contain_text("faulty")
    notices = page.get_by_role("region", name="Notices")
    expect(notices).to_contain_text("Stale")
    visit(page, "Serving")
    expect(notices).to_contain_text("Stale")
    visit(page, "Generations")
    write_manifest(good)
    press(page, "Reload", "Generation")
    expect(notices.get_by_text("Stale")).to_have_count(0)


def roll_back(page):
    """7. A rollback asks for confirmation, and another generation is live."""
    before = live(page)
    back = page.get_by_role("button", name=re.compile("^Roll back to generation"))
    goal = number(back.inner_text())
    back.click()
    dialog = page.get_by_role("dialog", name=f"Roll back to generation {goal}?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    check("a cancelled rollback changes nothing", live(page) == before)
    back.click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(result(page)).to_contain_text("rolled back")
    # The policy of the previous generation is live under a new number.
    wait_for_live(page, before + 1)
    press(page, "Reload", "applied")
    wait_for_live(page, before + 2)


def pipeline_graph(page):
    """8. The graph of a pipeline has counts, and so has the table beside it."""
    name = CONFIG.get("pipeline_name", CONFIG["pipeline"])
    visit(page, "Pipelines")
    page.get_by_role("table", name="Pipelines").get_by_role("link", name=name, exact=True).first.click()
    heading(page, f"Pipeline {name}")
    steps = page.locator("svg.graph g.step")
    expect(steps.first).to_be_visible()
    rows = page.get_by_role("table", name=f"Steps of {name}").locator("tbody tr")
    expect(rows).to_have_count(steps.count())
    expect(page.locator("svg.graph text.count").filter(has_text=re.compile(r"[1-9].* ok")).first).to_be_visible()
    page.locator("svg.graph g.step").first.focus()
    expect(page.locator("tr.marked")).to_have_count(1)
    picture(page, "pipeline-light")


def submit_job():
    body = json.dumps({"model": CONFIG["job_model"], "data": CONFIG["job_data"]}).encode()
    headers = {"content-type": "application/json"}
    if CONFIG.get("key"):
        headers["authorization"] = f"Bearer {CONFIG['key']}"
    request = urllib.request.Request(CONFIG["public"].rstrip("/") + "/predict/async", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["job_id"]


def job(page):
    """9. A job is listed and shown, and cancelled, repeated or deleted."""
    made = submit_job() if CONFIG.get("public") else None
    visit(page, "Jobs")
    page.get_by_label("Model").fill(CONFIG["job_model"])
    links = page.get_by_role("table", name="Jobs, newest first").get_by_role("link")
    chosen = links.filter(has_text=made).first if made else links.first
    expect(chosen).to_be_visible()
    job_id = chosen.inner_text()
    chosen.click()
    heading(page, f"Job {job_id}")
    act = page.get_by_role("button", name=re.compile("^(Cancel|Delete)$"))
    expect(act).to_be_visible()
    if act.inner_text() == "Cancel":
        act.click()
        # The job may have ended by itself in between.
        expect(result(page)).to_contain_text(re.compile("ancelled"))
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(result(page)).to_contain_text(f"Job {job_id} is deleted")
    heading(page, "Jobs")
    expect(page.get_by_role("link", name=job_id)).to_have_count(0)


def log(page):
    """10. The log of a plugin is followed live, and its markup is text."""
    visit(page, "Serving")
    plugins = page.get_by_role("table", name="Plugins")
    plugins.get_by_role("link", name=CONFIG["plugin"], exact=True).first.click()
    heading(page, "Log")
    expect(page.get_by_label("Plugin")).to_have_value(CONFIG["plugin"])
    expect(page.get_by_text(re.compile(r"Live, .*line"))).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    other = listen(page.context.new_page())
    other.goto(PAGE + "#/predict")
    heading(other, "Predict")
    check("the plugin answers", predict(other, CONFIG["plugin_model"], CONFIG["plugin_data"], CONFIG.get("plugin_parameters")).status == 200)
    other.close()
    line = page.get_by_role("log").get_by_text(CONFIG.get("plugin_line", "<img src=x onerror="))
    expect(line.first).to_be_visible()
    check("markup of the log is text", page.locator("main img").count() == 0)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    page.get_by_label("Level").select_option("ERROR")
    page.get_by_label("Level").select_option("TRACE")
    expect(line.first).to_be_visible()


def focused(page):
    return page.evaluate("document.activeElement.textContent.trim()")


def tab_to(page, name):
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page) == name:
            return
    raise SystemExit(f"not so: the keyboard reaches {name}")


def keyboard(page):
    """The keyboard alone reaches the views, sorts a table and answers a dialog."""
    page.goto(PAGE + "#/serving")
    page.reload()
    heading(page, "Serving")
    page.keyboard.press("Tab")
    check("the skip link comes first", focused(page) == "Skip to the content")
    page.keyboard.press("Enter")
    check("it leads to the content", page.evaluate("document.activeElement.id") == "main")
    tab_to(page, "Executor")
    page.keyboard.press("Enter")
    order = page.get_by_role("table", name="Executors").get_by_role("columnheader", name="Executor")
    expect(order).to_have_attribute("aria-sort", "descending")
    page.reload()
    heading(page, "Serving")
    tab_to(page, "Generations")
    page.keyboard.press("Enter")
    heading(page, "Generations")
    check("the heading has the focus", focused(page) == "Generations")
    expect(page.get_by_role("link", name="Generations").first).to_have_attribute("aria-current", "page")
    expect(page.get_by_role("button", name=re.compile("^Roll back to generation"))).to_be_enabled()
    tab_to(page, page.get_by_role("button", name=re.compile("^Roll back")).inner_text())
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    check("the dialog begins at Cancel", focused(page) == "Cancel")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    check("the focus is back", focused(page).startswith("Roll back"))


def views():
    name = CONFIG.get("pipeline_name", CONFIG["pipeline"])
    return [
        ("serving", "Serving"),
        ("generations", "Generations"),
        ("pipelines", "Pipelines"),
        (f"pipelines/{name}", f"Pipeline {name}"),
        ("jobs", "Jobs"),
        (f"predict?model={CONFIG['model']}", "Predict"),
        (f"log/{CONFIG['plugin']}", "Log"),
    ]


# What each view shows once it has its data.
FULL = "main table tbody tr, main .history > li, main .empty:not([hidden]), main ol.log > li, main svg.graph"


def phone(page):
    """On a phone no view scrolls sideways."""
    page.set_viewport_size(PHONE)
    for view, title in views():
        page.goto(f"{PAGE}#/{view}")
        heading(page, title)
        page.locator(FULL).first.wait_for(state="attached")
        wide, room = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
        check(f"{title} fits on a phone: {wide} of {room}", wide <= room)
        if view == "serving":
            picture(page, "serving-phone")
    page.set_viewport_size(DESKTOP)


def dark(page):
    """The dark scheme is dark."""
    page.emulate_media(color_scheme="dark")
    page.goto(f"{PAGE}#/serving")
    heading(page, "Serving")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    check(f"{ground} is dark", all(int(part) < 64 for part in re.findall(r"\d+", ground)[:3]))
    page.locator(FULL).first.wait_for()
    expect(page.get_by_text("cover the last")).to_be_visible()
    picture(page, "serving-dark")
    page.emulate_media(color_scheme="light")


def sign_out(page):
    """The caller signs out, and the page shows nothing more."""
    if not CONFIG.get("key"):
        return
    page.get_by_role("button", name="Sign out").click()
    heading(page, "Sign in")
    page.reload()
    heading(page, "Sign in")
    check("no table after signing out", page.get_by_role("table").count() == 0)


# Counts what some polls of the page change, and notes the longest that it kept the browser busy.
WATCH = """async (polls) => {
    const seen = {changed: 0, moved: 0, longest: 0, polls: 0};
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
        seen.longest = Math.max(seen.longest, entry.duration);
    })).observe({type: "longtask", buffered: true});
    const rows = (nodes) => [...nodes].filter((node) => node.nodeName === "TR").length;
    const changes = new MutationObserver((list) => list.forEach((change) => {
        seen.changed += 1;
        seen.moved += rows(change.addedNodes) + rows(change.removedNodes);
    }));
    changes.observe(document.querySelector("main"), {subtree: true, childList: true, characterData: true, attributes: true});
    await new Promise((done) => new PerformanceObserver((list) => {
        seen.polls += list.getEntries().filter((entry) => entry.name.endsWith("/api/admin/status")).length;
        if (seen.polls >= polls) done();
    }).observe({type: "resource"}));
    changes.disconnect();
    return seen;
}"""


def large(page):
    """200 models and 100 reloads are shown, and a poll of an idle host changes little."""
    page.goto(PAGE)
    heading(page, "Serving")
    rows = page.get_by_role("table", name="Models").locator("tbody tr")
    expect(rows).to_have_count(CONFIG["models"])
    seen = page.evaluate(WATCH, 3)
    print(f"serving: {seen}", flush=True)
    check(f"no row moves: {seen}", seen["moved"] == 0)
    check(f"most cells stay as they are: {seen}", seen["changed"] < 4 * seen["polls"] * CONFIG["models"])
    page.get_by_label("Filter").fill("m199")
    expect(rows).to_have_count(1)
    visit(page, "Generations")
    title = page.get_by_role("heading", name=re.compile("^Reloads"))
    records = page.locator("section", has=title).locator("details")
    expect(records.nth(CONFIG["reloads"] - 1)).to_be_attached()
    print(f"generations: {page.evaluate(WATCH, 2)}", flush=True)


EXERCISES = [large] if CONFIG.get("models") else [
    sign_in, serving, pipeline_steps, wrong_input, reload, rejected, roll_back, pipeline_graph, job, log,
    keyboard, phone, dark, sign_out,
]


def main():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CONFIG["chromium"], args=["--no-sandbox"], headless=True)
        page = listen(browser.new_context(viewport=DESKTOP, color_scheme="light").new_page())
        for exercise in EXERCISES:
            try:
                exercise(page)
            except BaseException:
                print(f"failed: {exercise.__name__}", file=sys.stderr)
                print(page.locator("body").inner_text()[:3000], file=sys.stderr)
                raise
            check(f"the browser complains in {exercise.__name__}: {complaints}", not complaints)
            print(f"{exercise.__name__}: {exercise.__doc__}", flush=True)
        browser.close()


main()
