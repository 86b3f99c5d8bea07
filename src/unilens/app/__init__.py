"""The web page: see why, compare methods, walk along the path (extra `app`).

`studio` does the work and knows nothing of the page; `wanted` is what a page may ask for; `page`
lays it out and `server` opens it.
"""
