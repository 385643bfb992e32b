"""Tables in, prepared tables out: readers, formats, validation, labels, joins, a simulated shop."""
