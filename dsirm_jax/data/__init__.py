"""What `prepare` leaves and every later stage reads: texts, vocabulary, pairs, vectors, tasks."""
