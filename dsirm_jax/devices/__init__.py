"""What the package asks of the devices that it computes on."""
