"""Pictures of a report for README and docs: light and dark, wide and narrow.

python benchmarks/screenshots.py results/report.html docs/images
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

# name: width, height, scheme, what is brought into view
VIEWS = {
    "report": (1300, 1150, "light", "h1"),
    "report_map": (1300, 1150, "light", "#map"),
    "report_csc_dark": (1300, 1150, "dark", "#cancer-stem-cells-cd44-cd24-and-aldh1a3"),
    "report_narrow": (420, 1000, "light", "#figure-csc_forest"),
    "report_narrow_dark": (420, 1000, "dark", "h1"),
}


def main(page: Path, folder: Path) -> None:
    """Write one small PNG per view."""
    from PIL import Image

    from browser import Visit, chromium

    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name, (width, height, scheme, target) in VIEWS.items():
            visit = Visit(browser, page.resolve(), viewport={"width": width, "height": height}, color_scheme=scheme)
            visit.drawn()
            for box in visit.tab.locator(".table").all():
                box.scroll_into_view_if_needed()
            visit.tab.locator(target).first.evaluate("e => e.scrollIntoView({behavior: 'instant', block: 'start'})")
            visit.tab.wait_for_timeout(400)
            picture = Image.open(io.BytesIO(visit.tab.screenshot())).convert("RGB")
            small = picture.quantize(128, dither=Image.Dither.NONE)
            small.save(folder / f"{name}.png", optimize=True)
            visit.context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
