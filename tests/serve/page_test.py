"""The page in a headless Chromium: page_test.py SERVER SOURCE [--pictures FOLDER]

Speaks to the browser through its debugging pipe, so it needs no driver. Exits with 77 where there is no Chromium.
"""
import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from counted_cases import end, run_cases

QUESTION = "In the land of Pelia, what is the feast?"


class Browser:
    """One page of a Chromium of its own."""

    def __init__(self, program):
        self.folder = tempfile.mkdtemp()
        to_read, self.to = os.pipe()
        self.back, to_write = os.pipe()

        def place():  # the browser reads 3 and writes 4
            a, b = os.dup(to_read), os.dup(to_write)
            a, b = (os.dup(a), os.dup(b)) if {a, b} & {3, 4} else (a, b)
            os.dup2(a, 3)
            os.dup2(b, 4)

        flags = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--disable-dev-shm-usage", "--no-proxy-server", f"--user-data-dir={self.folder}"]
        self.process = subprocess.Popen([program, *flags, "about:blank"], preexec_fn=place, close_fds=False,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.count, self.rest, self.session, self.messages = 0, b"", None, []
        target = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                got = os.read(self.back, 1 << 20)
                if not got:
                    raise RuntimeError("the browser has ended")
                self.rest += got
            raw, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(raw)
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                if answer["params"].get("entry", {}).get("level") != "verbose":
                    self.messages.append(answer["params"])
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def js(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, expression, seconds=90):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.js(f"!!({expression})"):
                return
            time.sleep(0.1)
        raise AssertionError(f"never came true: {expression}; the page says {self.js('document.body.innerText')!r}")

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            extra = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **extra)

    def size(self, width, height, dark):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def picture(self, file):
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


IDLE = "!document.getElementById('send').disabled"


def said(page, side):
    return page.js(f"[...document.querySelectorAll('#{side} .said')].at(-1)?.textContent ?? ''")


def ask(page):
    page.js("document.getElementById('message').focus()")
    page.type(QUESTION)
    page.press("Enter", 13)
    page.until("document.getElementById('send').disabled || document.querySelectorAll('.said').length > 0")
    page.until(IDLE)


def case_same_without_steering(page, _):
    """without a steering both columns answer alike"""
    page.js("document.getElementById('temperature').value = 0.7; document.getElementById('tokens').value = 32")
    ask(page)
    assert said(page, "plain") and said(page, "plain") == said(page, "steered"), (said(page, "plain"), said(page, "steered"))


def case_steered(page, pictures):
    """a feature found and chosen by keyboard changes the steered column alone; audit and cost stand below"""
    plain = said(page, "plain")
    page.js("document.getElementById('clear').click(); document.getElementById('query').focus()")
    page.type("330")
    page.press("Enter", 13)
    page.until("document.querySelector('.hit')")
    page.js("document.querySelector('.hit').focus()")
    page.press("Enter", 13)
    page.until("document.querySelector('#chosen input[type=range]')")
    page.js("{ const s = document.querySelector('#chosen input[type=range]'); s.value = 2; s.dispatchEvent(new Event('input')); }")
    ask(page)
    assert said(page, "plain") == plain, "the plain column changed"
    assert said(page, "steered") != plain, "the steered column did not change"
    cost = page.js("[...document.querySelectorAll('#steered .cost')].at(-1).textContent")
    assert re.search(r"NLL \d", cost) and re.search(r"[1-9]\d* of \d+ tokens changed", cost) and "KL about" in cost, cost
    page.js("document.querySelector('#chosen [tabindex]').focus()")
    shaded = page.js("[...document.querySelectorAll('.said span')].filter(s => s.style.background).length")
    assert shaded > 0, "no token is shaded"
    if pictures:
        for name, width, height, dark in (("wide", 1200, 900, False), ("dark", 1200, 900, True), ("phone", 390, 1400, True)):
            page.size(width, height, dark)
            page.picture(pictures / f"page-{name}.png")
            assert page.js("document.documentElement.scrollWidth <= innerWidth"), f"{name}: wider than the window"
        page.size(1200, 900, False)


def case_export(page, _):
    """exports say the feature, as JSON and as C++"""
    page.js("document.getElementById('as-json').click()")
    steering = json.loads(page.js("document.getElementById('export').textContent"))
    assert steering[0]["feature"] == 330 and steering[0]["strength"] == 2, steering
    page.js("document.getElementById('as-cpp').click()")
    assert "nudge(sae, 330" in page.js("document.getElementById('export').textContent")


def case_stop(page, _):
    """Escape ends an answer, and the next one comes"""
    page.js("document.getElementById('tokens').value = 400; document.getElementById('message').focus()")
    page.type(QUESTION)
    page.press("Enter", 13)
    page.press("Escape", 27)
    page.until(IDLE)
    page.js("document.getElementById('tokens').value = 16; document.getElementById('clear').click()")
    ask(page)
    assert said(page, "plain")


def case_auto_steer(page, pictures):
    """Auto Steer runs as a job to its verdict and curve"""
    page.js("document.getElementById('behaviour').focus()")
    page.type("concise")
    page.press("Enter", 13)
    page.until("/: /.test(document.getElementById('auto-state').textContent) && !document.getElementById('auto-go').disabled", 300)
    assert page.js("document.querySelector('#auto-curve img')?.naturalWidth > 0"), "no curve"
    if pictures:
        page.picture(pictures / "page-auto.png")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--pictures", type=pathlib.Path)
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        print("skipped: there is no Chromium")
        sys.exit(77)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen([options.server, "--port", "0"], cwd=options.source, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    url = re.search(r"http://\S+", server.stdout.readline()).group(0)
    page = Browser(program)
    passed = failed = 0
    try:
        page.size(1200, 900, False)
        page.call("Page.navigate", url=url)
        page.until("document.getElementById('model')?.textContent")
        passed, failed = run_cases(globals(), page, options.pictures)
        if page.messages:
            failed += 1
            print(f"FAILED  the page's console is empty: {page.messages}")
    finally:
        page.close()
        server.terminate()
        server.wait(60)
    end(passed, failed)


main()
