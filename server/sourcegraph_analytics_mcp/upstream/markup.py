"""Tell data from markup: a login page that comes instead of data never counts as data."""

import re

from .policy import Call, login_page, misread

ENOUGH_MARKUP = 1024  # bytes in which a web page says that it is one
_WEB_PAGE = re.compile(rb"<!doctype\s+html|<html[\s>]", re.IGNORECASE)


def visible(body: bytes) -> bytes:
    """A body from its first visible byte on."""
    return body.removeprefix(b"\xef\xbb\xbf").lstrip()


def refuse_markup(body: bytes, call: Call) -> None:
    """Refuse a body whose first visible byte opens markup: a web page is a login page, anything else is no data."""
    begin = visible(body)[:ENOUGH_MARKUP]
    if begin[:1] != b"<":
        return
    if _WEB_PAGE.search(begin):
        raise login_page(call)
    raise misread("Upstream answered with markup that is no web page, such as XML, instead of data.")
