"""The policy `gem`: stages 1 to 3."""
