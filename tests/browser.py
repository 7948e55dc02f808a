"""A headless Chromium that has no network, driven through a pipe by its own protocol.

    python -m tests.browser

installs Debian's Chromium where it is missing and can be had (root, apt-get). Elsewhere the tests
that need it are skipped.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager

PROGRAM = "/usr/bin/chromium"
# What it needs, and letters, which a machine without a screen may not have.
PACKAGES = ["chromium", "fonts-dejavu-core"]
WORDS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--remote-debugging-pipe", "--hide-scrollbars"),
]

ALONE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


def there():
    """Whether there is one here."""
    return os.access(PROGRAM, os.X_OK)


class Browser:
    """One page at a time.

    Args:
        send: file that takes requests.
        receive: file that gives answers and events.
    """

    def __init__(self, send, receive):
        self._send, self._receive, self._number, self._session = send, receive, 0, None
        self.events = []

    def ask(self, method, **values):
        """The answer to a request; events that come before it are kept."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": values}
        if self._session:
            request["sessionId"] = self._session
        self._send.write(json.dumps(request).encode() + b"\0")
        self._send.flush()
        while (message := self._next()).get("id") != self._number:
            self.events.append(message)
        assert "error" not in message, message["error"]
        return message["result"]

    def _next(self):
        text = bytearray()
        while (byte := self._receive.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        return json.loads(text)

    def open(self, address, width=1280, height=900, dark=False):
        """Opens a page in a new tab and waits until all of it is there."""
        self._session, self.events = None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        found = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            self.ask(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.ask("Page.navigate", url=address)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._next())
        # What a script or a style would ask for after it is loaded.
        self.value("new Promise(done => setTimeout(done, 200))")

    def value(self, script):
        """What a script gives in the page."""
        words = {"returnByValue": True, "awaitPromise": True}
        answer = self.ask("Runtime.evaluate", expression=script, **words)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, path):
        """Writes a PNG of the whole page."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self):
        """Addresses that the page has asked for."""
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self):
        """What stands in its console: errors, refusals, and what scripts have said."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [event for event in self.events if event.get("method") in kinds]


@contextmanager
def browser():
    """A browser for the length of a block, in an empty home of its own."""
    # File descriptors 3 and 4 are where Chromium looks for the pipe.
    to_read, send = os.pipe()
    receive, to_write = os.pipe()
    with tempfile.TemporaryDirectory() as home:
        script = f'exec 3<&{to_read} 4>&{to_write}; exec "$@"'
        words = ["bash", "-c", script, "bash", PROGRAM, *WORDS, f"--user-data-dir={home}"]
        # Without a network of the machine: nothing could leave even if it wanted to. And with its
        # processes in a namespace that ends with the first of them: otherwise some still write to
        # the home while it is removed.
        alone = ALONE if _can_be_alone() else []
        process = subprocess.Popen(
            [*alone, *words], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        try:
            with os.fdopen(send, "wb") as requests, os.fdopen(receive, "rb") as answers:
                yield Browser(requests, answers)
        finally:  # it ends when nobody holds the other end of the pipe
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _can_be_alone():
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def install():
    """Brings it here; a reason in one line where that cannot be."""
    if there():
        return
    if os.geteuid() or not shutil.which("apt-get"):
        sys.exit(f"no {PROGRAM}, and no way to install it: it needs root and apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", "-qq", *words], env=environment, stdout=subprocess.DEVNULL)
    if not there():
        sys.exit(f"{PROGRAM} could not be installed")


if __name__ == "__main__":
    install()
