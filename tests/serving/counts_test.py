from concurrent.futures import ThreadPoolExecutor

from dsirm_jax.serving.counts import Counts


def test_threads_lose_no_count():
    counts = Counts(["hits", "misses"])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda by: counts.add("hits", by), range(100)))
    assert counts.now() == {"hits": 4950, "misses": 0}
