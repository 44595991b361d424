"""Data in and out: one folder for each command that makes, converts, labels or checks datasets."""
