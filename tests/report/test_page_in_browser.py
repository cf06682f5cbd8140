"""The page of results in a real browser: it sorts, fits a phone, follows the colour scheme."""

import base64
import io
import json
import os
import shutil
import subprocess
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import pytest
from bench_results import MACHINE, accuracy, result, several, with_file
from PIL import Image

from cct_export.records import MachineInfo
from cct_export.report.page import page

pytestmark = pytest.mark.browser

WAIT_S = 20
APT_S = 400
PHONE, DESKTOP = (375, 812), (1280, 900)
PWNED = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>"


@pytest.fixture(scope="session")
def chromium():
    """Paths of Chromium and its driver, installed through apt where that may be done."""
    missing = _missing()
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
        missing = _missing()
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}, and apt-get could not install it")
    return shutil.which("chromium"), shutil.which("chromedriver")


def _missing():
    return [name for name in ("chromium", "chromedriver") if not shutil.which(name)]


def _install():
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["install", "-y", "--no-install-recommends", "chromium", "chromium-driver"]
    for arguments in (["update"], install):
        try:
            done = subprocess.run(
                ["apt-get", *arguments],
                env=environment, capture_output=True, text=True, timeout=APT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            pytest.skip(f"apt-get {arguments[0]} took over {APT_S} s")
        if done.returncode:
            pytest.skip(f"apt-get {arguments[0]} failed: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def driver(chromium):
    """A headless Chromium that keeps a log of its console and of all requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium[0]
    # Chromium refuses its sandbox to root; what it opens here is our own.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", *sandbox):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(chromium[1]))
    started.set_page_load_timeout(60)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the page of all kinds of results lies."""
    return _written(tmp_path_factory.mktemp("page"), several())


def _written(folder, results, machine=MACHINE):
    path = folder / "page.html"
    path.write_text(page(machine, results), "utf-8")
    return path.as_uri()


@pytest.fixture
def opened(driver, address, request, tmp_path):
    """Opens a page in a size and a colour scheme; leaves a picture if the test fails."""

    def show(size=DESKTOP, scheme="light", where=address):
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE},
        )
        _colours(driver, scheme)
        for log in ("browser", "performance"):
            driver.get_log(log)
        driver.get(where)
        return driver

    failed = request.session.testsfailed
    yield show
    if request.session.testsfailed > failed or os.environ.get("SCREENSHOTS"):
        folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{request.node.name}.png").write_bytes(_picture(driver))


def _picture(driver):
    settings = {"format": "png", "captureBeyondViewport": True}
    return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", settings)["data"])


def _colours(driver, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def _until(driver, script):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, WAIT_S).until(lambda driver: driver.execute_script(script))


def _header(driver, title):
    from selenium.webdriver.common.by import By

    headers = driver.find_elements(By.CSS_SELECTOR, ".sortable thead th")
    (header,) = (header for header in headers if header.text == title)
    return header.find_element(By.TAG_NAME, "button")


def _sorted_by(driver, title):
    return _header(driver, title).find_element("xpath", "..").get_attribute("aria-sort")


def _column(driver, title):
    script = """
        const table = document.querySelector(".sortable");
        const heads = [...table.tHead.rows[0].cells];
        const index = heads.findIndex((cell) => cell.textContent === arguments[0]);
        return [...table.tBodies[0].rows].map((row) => row.cells[index].textContent);
    """
    return driver.execute_script(script, title)


def test_the_console_has_no_error(opened):
    driver = opened()
    driver.execute_script("scrollTo(0, document.body.scrollHeight)")
    _colours(driver, "dark")
    assert driver.get_log("browser") == []


def test_no_request_leaves_the_page(opened, address):
    driver = opened()
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert address in urls
    assert [url for url in urls if url != address and not url.startswith("data:")] == []


def test_every_artifact_and_every_chart_is_shown(opened):
    driver = opened()
    names = _column(driver, "artifact")
    expected = [Path(result.artifact.path).name for result in several()]
    assert [name.split()[-1] for name in names] == expected
    areas = driver.execute_script(
        "return [...document.querySelectorAll('.chart > svg')]"
        ".map(svg => svg.getBoundingClientRect()).map(box => box.width * box.height)"
    )
    assert len(areas) == 14
    assert min(areas) > 10_000


def test_clicks_sort_by_number_ascending_then_descending(opened):
    driver = opened()
    assert _column(driver, "kB") == ["1,699", "512", "862", "1,702", "498", "301"]
    _header(driver, "kB").click()
    assert _sorted_by(driver, "kB") == "ascending"
    assert _column(driver, "kB") == ["301", "498", "512", "862", "1,699", "1,702"]
    _header(driver, "kB").click()
    assert _sorted_by(driver, "kB") == "descending"
    assert _column(driver, "kB") == ["1,702", "1,699", "862", "512", "498", "301"]
    _header(driver, "p50 ms").click()
    assert _column(driver, "p50 ms")[:4] == ["2.310", "3.020", "4.384", "4.404"]


def test_words_are_sorted_as_a_reader_would(opened, tmp_path):
    where = _written(tmp_path, [result(f"run{n}-int8.onnx", runs=40) for n in (10, 9, 100)])
    driver = opened(where=where)
    _header(driver, "artifact").click()
    assert [name.split()[-1] for name in _column(driver, "artifact")] == [
        "run9-int8.onnx", "run10-int8.onnx", "run100-int8.onnx",
    ]  # fmt: skip


def test_the_keyboard_sorts_too(opened):
    from selenium.webdriver.common.keys import Keys

    driver = opened()
    driver.execute_script("arguments[0].focus()", _header(driver, "load ms"))
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert _sorted_by(driver, "load ms") == "ascending"
    assert _column(driver, "load ms") == ["13.5", "14.5", "15.5", "16.5", "17.5", "–"]
    driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert _sorted_by(driver, "load ms") == "descending"
    assert _column(driver, "load ms") == ["17.5", "16.5", "15.5", "14.5", "13.5", "–"]


def test_refused_latencies_stay_at_the_bottom_in_both_orders(opened):
    driver = opened()
    for _ in range(2):
        _header(driver, "p50 ms").click()
        below = _column(driver, "p50 ms")[-2:]
        assert sorted(below) == ["failed: the engine crashed (SIGSEGV)", "refused: parity failed"]


def test_only_the_column_of_the_last_click_is_marked(opened):
    driver = opened()
    _header(driver, "kB").click()
    _header(driver, "scheme").click()
    marked = driver.execute_script(
        "return [...document.querySelectorAll('[aria-sort]')]"
        ".filter(cell => cell.getAttribute('aria-sort') !== 'none').map(cell => cell.textContent)"
    )
    assert marked == ["scheme"]


@pytest.mark.parametrize("size", [PHONE, (320, 640), DESKTOP])
def test_nothing_is_wider_than_the_window(opened, size):
    driver = opened(size)
    wide = driver.execute_script("return document.documentElement.scrollWidth")
    assert wide <= size[0]
    assert driver.execute_script(
        # Bars cut off what is too long for a phone: it is in their tooltips.
        "return [...document.querySelectorAll('.chart > svg:not(.bars) text')]"
        f".every(text => text.getBoundingClientRect().right <= {size[0]})"
    )


BOX = "const box = document.querySelector('.sortable').parentElement; "


@pytest.mark.parametrize("size", [PHONE, (800, 900)])
def test_a_table_that_is_wider_than_the_page_scrolls_under_its_first_column(opened, size):
    driver = opened(size)
    inner, outer = driver.execute_script(f"{BOX} return [box.scrollWidth, box.clientWidth]")
    assert inner > outer <= size[0]
    driver.execute_script(f"{BOX} box.scrollLeft = 9999")
    assert driver.execute_script(
        f"{BOX} const header = box.querySelector('th'), at = header.getBoundingClientRect();"
        "return [5, at.width / 2, at.width - 5].every((x) =>"
        "header.contains(document.elementFromPoint(at.left + x, at.top + at.height / 2)))"
    )
    first, last, edge = driver.execute_script(
        f"{BOX} const cells = box.querySelector('tbody tr').cells;"
        "const at = (cell) => cell.getBoundingClientRect();"
        "const last = cells[cells.length - 1];"
        "return [at(cells[0]).left - at(box).left, at(last).right, at(box).right]"
    )
    assert first == pytest.approx(0, abs=1)
    assert last == pytest.approx(edge, abs=1)


def test_a_shadow_shows_that_a_table_goes_on(opened):
    driver = opened(PHONE)
    before = _edge_of_the_table(driver)
    driver.execute_script(f"{BOX} box.scrollLeft = 9999")
    after = _edge_of_the_table(driver)
    # Above the header, where there is no text: from 20 pixels before the edge to the edge.
    assert before[0] - before[-1] > 30
    assert after[0] == after[-1]


def _edge_of_the_table(driver):
    """The brightness of a row of pixels at the right end of the box of the table."""
    right, top = driver.execute_script(
        f"{BOX} const edge = box.getBoundingClientRect();"
        "return [edge.right + scrollX, edge.top + scrollY]"
    )
    picture = Image.open(io.BytesIO(_picture(driver))).convert("L")
    return [picture.getpixel((int(right) - offset, int(top) + 2)) for offset in range(20, 1, -1)]


def test_every_column_of_a_usual_table_fits_a_desk(opened, tmp_path):
    usual = [result(f"cct-int8.{ending}", accuracy=accuracy()) for ending in ("tflite", "onnx")]
    driver = opened(DESKTOP, where=_written(tmp_path, usual))
    inner, outer = driver.execute_script(f"{BOX} return [box.scrollWidth, box.clientWidth]")
    assert inner == outer


NAMES = """
    const shown = [...document.querySelectorAll('.names')]
        .filter(group => getComputedStyle(group).display !== 'none');
    const edges = (one) => { const box = one.getBoundingClientRect();
        return [box.left, box.right, box.top, box.bottom]; };
    const plot = document.querySelector('.chart > svg');
    return [shown.length, edges(plot),
        [...shown[0].querySelectorAll('text')].map((text) => [text.textContent, edges(text)])];
"""


@pytest.mark.parametrize("width", [320, 359, 360, 390, 703, 704, 800, 1280, 1920])
def test_names_at_points_are_in_the_plot_and_cover_each_other_at_no_width(opened, tmp_path, width):
    files = product(("float32", "float16", "int8", "int8-dynamic"), ("tflite", "onnx"))
    results = [
        result(f"cct_7x3_run{n}-{scheme}.{ending}", 2 + 0.04 * n, seed=n, accuracy=accuracy(0.84))
        for n, (scheme, ending) in enumerate(files)
    ]
    driver = opened((width, 900), where=_written(tmp_path, results))
    groups, plot, names = driver.execute_script(NAMES)
    assert groups == 1
    # So many names of that length have no room on a phone: the number of a result replaces one.
    assert len(names) == len(results)
    assert len([name for name, _ in names if not name.isdigit()]) >= (7 if width < 704 else 8)
    for _, (left, right, _, _) in names:
        assert plot[0] - 1 <= left
        assert right <= plot[1] + 1
    for (_, a), (_, b) in combinations(names, 2):
        # The box of a line of text is a little higher than its letters.
        assert a[1] <= b[0] + 1 or b[1] <= a[0] + 1 or a[3] <= b[2] + 2 or b[3] <= a[2] + 2


def test_charts_follow_the_width_of_the_window_and_their_text_keeps_its_size(opened):
    driver = opened(DESKTOP)
    measures = (
        "const svg = document.querySelector('.chart > svg');"
        "const tick = svg.querySelector('text.middle');"
        "return [svg.getBoundingClientRect().width, tick.getBoundingClientRect().height]"
    )
    wide, letters = driver.execute_script(measures)
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 375, "height": 812, "deviceScaleFactor": 1, "mobile": False},
    )
    narrow, letters_there = driver.execute_script(measures)
    assert narrow < 375 < wide
    assert letters_there == letters


def _brightness(driver, script):
    """Returns the mean of red, green and blue of the colour that ``script`` returns."""
    colour = driver.execute_script(script)
    return sum(int(part) for part in colour.split("(")[1].strip(")").split(",")[:3]) / 3


BACKGROUND = "return getComputedStyle(document.body).backgroundColor"
LETTERS = "return getComputedStyle(document.querySelector('.chart text.middle')).fill"


def test_page_and_charts_follow_the_colour_scheme_while_it_changes(opened):
    driver = opened(scheme="light")
    assert _brightness(driver, BACKGROUND) > 200
    light = _brightness(driver, LETTERS)
    _colours(driver, "dark")
    _until(driver, f"{LETTERS} === 'rgb(162, 167, 174)'")
    assert _brightness(driver, BACKGROUND) < 60
    assert _brightness(driver, LETTERS) > light
    _colours(driver, "light")
    _until(driver, f"{LETTERS} === 'rgb(92, 97, 104)'")
    assert _brightness(driver, BACKGROUND) > 200


def test_a_hostile_name_is_shown_and_does_nothing(opened, tmp_path):
    harmless = result("a-int8.tflite", runs=40, warnings=(PWNED,), device=PWNED)
    hostile = replace(
        with_file(harmless, path=f"{PWNED}.tflite", scheme=PWNED),
        accuracy=accuracy(0.8, (PWNED, "<b>bold</b>", "<a href='javascript:pwned=3'>x</a>")),
    )
    driver = opened(
        where=_written(
            tmp_path, [hostile, harmless], MachineInfo(cpu=PWNED, versions={PWNED: PWNED})
        )
    )
    assert driver.execute_script("return window.pwned") is None
    assert "window.pwned=1" in driver.execute_script("return document.body.innerText")
    assert driver.execute_script("return document.querySelectorAll('img, .chart a').length") == 0
    ticks = driver.execute_script(
        "return [...document.querySelectorAll('.matrix text')].map(t => t.textContent)"
    )
    assert "<b>bold</b>" in ticks
    assert driver.get_log("browser") == []


def test_a_script_that_is_not_ours_is_not_run(opened, driver):
    opened()
    driver.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.pwned = 4';"
        "document.body.append(script)"
    )
    assert driver.execute_script("return window.pwned") is None
