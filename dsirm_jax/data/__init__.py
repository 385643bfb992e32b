"""Tables in, one documented schema out: readers, validation, the simulated shop, TFDS and SeqIO."""
