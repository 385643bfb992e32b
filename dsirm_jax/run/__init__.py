"""What a run is: its layout, its configuration, which stages run and when they are finished."""
