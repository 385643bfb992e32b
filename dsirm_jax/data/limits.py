"""How long texts may be, from the tables that are prepared to whatever serves them.

What is longer is refused or rejected with this number, and never cut without a word.
"""

QUERY_CHARACTERS = 1024
"""Of a query, cleaned by `text.clean`."""
ID_CHARACTERS = 512
"""Of an item's id. A thousand of them, the most of one request, fit in the body of one."""
