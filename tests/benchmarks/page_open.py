"""How long a browser takes from the report page of a run to the last chart, and how large the page is.

    python -m tests.benchmarks.page_open RUN

The least of several openings counts, light and dark, narrow and wide. Run by hand, on an idle machine with Chromium and its driver.
"""

import argparse
import tempfile
from pathlib import Path

from solversearch.report.page import write_page
from tests.report.chromium import opened, started

MOST_MS, MOST_BYTES = 2000, 8 * 10**6


def main() -> None:
    parser = argparse.ArgumentParser(description="Opens a report page in Chromium.")
    parser.add_argument("run", type=Path, help="folder of a run, a study or a sweep")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        page = write_page(given.run, Path(scratch) / "report.html")
        size, browser = page.stat().st_size, started(Path(scratch) / "profile")
        try:
            times = {
                f"{width} pixels, {scheme}": min(opened(browser, page, width, scheme) for _ in range(given.repeats))
                for width in (1400, 400) for scheme in ("light", "dark")
            }  # fmt: skip
        finally:
            browser.quit()
    print(f"{size / 1e6:.1f} MB; " + "; ".join(f"{how}: {ms} ms" for how, ms in times.items()))
    if max(times.values()) > MOST_MS or size > MOST_BYTES:
        raise SystemExit(f"more than {MOST_MS} ms or {MOST_BYTES} bytes")


if __name__ == "__main__":
    main()
