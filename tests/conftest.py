"""Settings of the whole suite."""

import pytest
import torch

# Tests run beside each other, one process a core; nested threads would only wait for one another.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest test: at the end of the suite one process would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)
