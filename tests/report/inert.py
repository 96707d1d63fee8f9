"""What in a page could run, or reach out, by an HTML parser that reads as browsers do."""

import base64
import hashlib
import re

import html5lib

REACHING = {
    "src",
    "href",
    "action",
    "formaction",
    "data",
    "srcdoc",
    "poster",
    "background",
    "cite",
    "ping",
    "srcset",
    "manifest",
}
ACTIVE = {
    *(
        "iframe",
        "frame",
        "object",
        "embed",
        "applet",
        "base",
        "form",
        "portal",
        "video",
        "audio",
        "source",
        "template",
        "math",
    ),
    *(
        "animate",
        "set",
        "animatetransform",
        "animatemotion",
        "foreignobject",
        "handler",
        "marquee",
        "isindex",
    ),
}


def elements(text):
    for node in html5lib.parse(text, namespaceHTMLElements=False).iter():
        if isinstance(node.tag, str):
            yield (
                node.tag.rpartition("}")[2].lower(),
                {key.rpartition("}")[2].lower(): value for key, value in node.items()},
                node.text or "",
            )


def troubles(text):
    """Empty of a page in which nothing but its one script can run and which asks nothing of anyone."""
    found, allowed, scripts = [], None, 0
    for tag, attributes, inside in elements(text):
        if tag == "meta" and attributes.get("http-equiv", "").lower() == "content-security-policy":
            allowed = attributes["content"]
        elif tag == "meta" and "http-equiv" in attributes:
            found.append(f"meta {attributes}")
        elif tag == "script":
            scripts += 1
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            if attributes or allowed is None or f"script-src 'sha256-{digest}'" not in allowed:
                found.append(f"script {attributes} {inside[:60]}")
        elif tag == "style" and re.search(
            r"@import|expression\(|url\((?!data:image/webp;base64,[A-Za-z0-9+/=]*\))", inside
        ):
            found.append(f"style {inside[:60]}")
        found += [f"element {tag}"] if tag in ACTIVE else []
        found += [
            f"{tag} {key}={value[:60]}" for key, value in attributes.items() if reaches(key, value)
        ]
    if allowed is None or not allowed.startswith("default-src 'none'; ") or scripts > 1:
        found.append(f"policy {allowed}, {scripts} scripts")
    return found


def reaches(key, value):
    if key.startswith("on"):
        return True
    if key == "style":
        return bool(re.search(r"url|expression|import|@|javascript|\\", value, re.IGNORECASE))
    own = value.startswith(("#", "data:image/", "data:,")) or re.fullmatch(
        r"[\w%.~-]+/report\.html", value
    )
    return key in REACHING and not own
