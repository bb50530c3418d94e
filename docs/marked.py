"""The parts of a page that scripts make: NAME is what stands between <!-- NAME --> and <!-- end of NAME -->."""

import re


def replaced(page, parts):
    """The page with other texts in these parts of it, by their names."""
    for name, text in parts.items():
        page, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)",
            lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}",
            page,
            flags=re.DOTALL,
        )
        if count != 1:
            raise SystemExit(f"the page has no place for the {name}")
    return page
