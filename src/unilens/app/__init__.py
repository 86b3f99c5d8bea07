"""The web page: see why, compare methods, follow the path (extra `app`).

`service` does the work without the page; `request` is what the page may ask of it; `page` lays the
page out and `server` opens it.
"""
