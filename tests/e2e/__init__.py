"""Whole deployments: workers as processes between real servers."""

import pytest

pytest.register_assert_rewrite("tests.e2e.comparing", "tests.e2e.waiting", "tests.e2e.workers")
