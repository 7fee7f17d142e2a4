"""Chromium without a screen, for the page's tests and its benchmark."""

import shutil
import time
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")


def started(profile: Path) -> Any:
    """A driver, with a new profile in the folder."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "disable-background-networking",
                   "disable-component-update", "disable-sync", f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def opened(browser: Any, page: Path, width: int, scheme: str) -> int:
    """Opens the page; milliseconds until all charts were drawn. Raises TimeoutError where they are not."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())
    for _ in range(300):
        if ready := browser.execute_script("return document.documentElement.dataset.ready"):
            return int(ready)
        time.sleep(0.1)
    raise TimeoutError(f"the charts were not drawn: {browser.get_log('browser')}")
