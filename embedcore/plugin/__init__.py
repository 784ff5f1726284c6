"""The pytest plugin: options, cases, fixtures, replay into pytest-benchmark, terminal summary."""
