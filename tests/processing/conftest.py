"""The golden tensors are those of tests/models."""

from tests.models.conftest import pytest_generate_tests

__all__ = ["pytest_generate_tests"]
