"""The kinds of vocabularies: one file each, all behind `protocol.Vocabulary`."""
