"""The kinds of encoders: one file each, all behind `protocol.DenseEncoder`."""
