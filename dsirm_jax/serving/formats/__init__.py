"""A bundle's models as programs: StableHLO and a SavedModel."""
