"""A shop small enough to be reckoned with by brute force."""

ITEMS, LEVELS, BEAMS, VERSION = 25, 3, 6, "a1b2c3d4e5f60718"
TITLE = 'Tom\'s 12" mug\\pot {"a": 1} $1 <b> \u2028 ß 👟; DROP TABLE items'
QUERIES = ["red mug", "it's 5\\\" {pot}", "nothing"]
