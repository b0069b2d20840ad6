"""What pytest says before it begins."""


def pytest_report_header(config):
    if config.option.markexpr == "not slow":
        return 'slow tests are left out; `pytest -m slow` runs them, `pytest -m ""` runs all'
    return None
