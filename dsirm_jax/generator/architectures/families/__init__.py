"""Families of pretrained language models: one file each, all behind `family.Family`."""
