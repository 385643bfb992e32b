"""The identifier itself, with no learning in it: codes, trie, prefix features."""
