"""Colours and fonts of pictures, for light and dark screens."""

# What becomes of a mask: (ground, text) on a light screen, then on a dark one.
FATES = {
    "born": ("#15803d", "#ffffff", "#4ade80", "#052e16"),
    "carried": ("#0369a1", "#ffffff", "#38bdf8", "#082f49"),
    "resampled": ("#7e22ce", "#ffffff", "#d8b4fe", "#3b0764"),
    "joined": ("#4338ca", "#ffffff", "#a5b4fc", "#1e1b4b"),
    "used": ("#92400e", "#ffffff", "#fbbf24", "#451a03"),
    "ended": ("#be185d", "#ffffff", "#f9a8d4", "#500724"),
    "refused": ("#b91c1c", "#ffffff", "#fca5a5", "#450a0a"),
}
# Name: on a light screen, on a dark one.
COLOURS = {
    "page": ("#f8fafc", "#0b1220"),
    "box": ("#ffffff", "#162032"),
    "group": ("#eef2f7", "#101a2b"),
    "border": ("#cbd5e1", "#334155"),
    "text": ("#0f172a", "#e8eef6"),
    "quiet": ("#475569", "#a9b6c8"),
    "plain": ("#64748b", "#8596ad"),
    "mask": ("#0369a1", "#38bdf8"),
}
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def _colours(dark: bool) -> dict[str, str]:
    named = {name: pair[dark] for name, pair in COLOURS.items()}
    for name, colours in FATES.items():
        named[name], named[f"on-{name}"] = colours[2 * dark : 2 * dark + 2]
    return named


def style() -> str:
    """Returns the style sheet; it touches nothing outside `.alphorn-flow`."""
    light, dark = (
        "".join(f"--af-{name}:{value};" for name, value in _colours(dark).items())
        for dark in (False, True)
    )
    return (
        f".alphorn-flow{{{light}}}"
        f"@media (prefers-color-scheme:dark){{.alphorn-flow{{{dark}}}}}"
        + _rules(SANS, MONO, "color-scheme:light dark")
    )


def plain_style() -> str:
    """Returns the style sheet for light paper, without variables, which no renderer but a browser knows."""
    rules = _rules("DejaVu Sans", "DejaVu Sans Mono", "")
    for name, value in _colours(False).items():
        rules = rules.replace(f"var(--af-{name})", value)
    return rules


def _rules(sans: str, mono: str, more: str) -> str:
    rules = {
        "": f"font-family:{sans};{more}",
        " .page": "fill:var(--af-page)",
        " .box": "fill:var(--af-box);stroke:var(--af-border)",
        " .group": "fill:var(--af-group);stroke:var(--af-border)",
        " .rule": "fill:none;stroke:var(--af-border)",
        " .title": "font-size:18px;font-weight:600;fill:var(--af-text)",
        " .name": "font-size:14px;font-weight:600;fill:var(--af-text)",
        " .quiet": "font-size:12px;fill:var(--af-quiet)",
        " .shape": f"font-family:{mono};font-size:12px;fill:var(--af-text)",
        " .badge": "font-size:11.5px;font-weight:600",
        " .edge": "fill:none;stroke:var(--af-plain);stroke-width:1.5",
        " .edge.masked": "stroke:var(--af-mask);stroke-width:2.75",
        " .edge.loose": "stroke-dasharray:5 5",
        " .tip": "fill:var(--af-plain)",
        " .tip.masked": "fill:var(--af-mask)",
    }
    for name in FATES:
        rules[f" .{name}"] = f"fill:var(--af-{name})"
        rules[f" .on-{name}"] = f"fill:var(--af-on-{name})"
    return "".join(f".alphorn-flow{where}{{{what}}}" for where, what in rules.items())
