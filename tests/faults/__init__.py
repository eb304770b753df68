"""What tries to break the promises."""
