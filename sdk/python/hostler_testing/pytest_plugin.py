"""The pytest plugin: the fixture `hostler_host`. Its import also makes `import hostler_plugin` work
in test modules."""

import pytest

import hostler_testing


def pytest_addoption(parser):
    parser.addini("hostler_app", "The path of the plugin that hostler_host loads.", default="app.py")


@pytest.fixture
def hostler_host(request):
    """A `hostler_testing.Host` with the plugin `app.py` in the root folder of the tests, loaded
    anew for each test. The setting `hostler_app` names another path."""
    return hostler_testing.Host(request.config.rootpath / request.config.getini("hostler_app"))
