"""Kinds of relevance heads, a file each; a new kind is a new file, or a module of your own."""
