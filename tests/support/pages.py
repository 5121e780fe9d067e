"""Reads a report's page."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects ids, addresses, labels of figures, and tags that were never closed."""

    VOID = ("meta", "br", "link", "img", "hr", "input", "path", "use", "image")

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.figures, self.open, self.scripts = [], [], [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[k] for k in ("href", "src", "xlink:href") if k in found]
        self.figures += [found["aria-label"]] if tag == "figure" else []
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag
