"""The colours of pictures and pages, and how well text can be read on them. The hues are Okabe and Ito's, told apart by all eyes."""

INK, GRID, GREY = "#24292f", "#d8dce1", "#6b7178"
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#b84c00", "#00785a", "#a84a80"
DARK = {
    INK: "#e6e8ea", GRID: "#3b4148", GREY: "#9aa1a9", BLUE: "#5cb8ec", ORANGE: "#ff9b52", GREEN: "#3ccba2", PINK: "#e69ac6",
}  # fmt: skip
"""What each colour is on a dark page."""
WHITE, BLACK = "#ffffff", "#000000"


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, from 0 to 1 (WCAG 2.2)."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """From 1 to 21; text needs 4.5 (WCAG 2.2)."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def readable_on(colour: str) -> str:
    """Black or white: one of the two has a contrast of at least 4.58 with any colour."""
    return max(BLACK, WHITE, key=lambda ink: contrast(ink, colour))
