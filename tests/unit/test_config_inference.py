"""The section `inference`, as people write it, and the mistakes they make."""

from __future__ import annotations

import pytest

from headgate.config_file import ConfigError, parse_config

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def parsed(text: str):
    return parse_config(text, env={"SECRET": SECRET})


def test_without_a_word_requests_can_be_submitted_and_nobody_is_told() -> None:
    found = parsed("").inference
    assert (found.at_work, found.open, found.open_of_a_tenant, found.bytes) == (16, 10_000, 1_000, 2**30)
    assert (found.patience, found.keep, found.webhook) == (1.5, 86_400.0, None)


def test_all_of_it_can_be_written() -> None:
    found = parsed(
        "inference: {at_work: 4, open: 50, open_of_a_tenant: 5, bytes: 64MiB, patience: 500ms, keep: 1h, webhook: {url: "
        '"https://example.com/hook?a=1", secret: "${SECRET}", timeout: 5s}}'
    ).inference
    assert (found.at_work, found.bytes, found.patience, found.keep) == (4, 64 * 2**20, 0.5, 3_600.0)
    assert found.webhook.secret.get_secret_value() == SECRET
    assert "whsec" not in repr(found)


def test_workers_may_be_elsewhere_where_they_find_what_was_submitted() -> None:
    text = "{storage: {url: 'postgresql://headgate@localhost/headgate'}, inference: {workers: elsewhere}}"
    assert (parsed(text).inference.workers, parsed("").inference.workers) == ("elsewhere", "here")


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{at_work: 0}", "inference.at_work: must be greater than 0"),
        ("{workers: somewhere}", "inference.workers"),
        ("{workers: elsewhere}", "inference.workers: workers elsewhere share a PostgreSQL"),
        ("{patience: 0s}", "inference.patience: must be greater than 0"),
        ("{keep: soon}", "inference.keep"),
        ("{queue: 5}", "inference.queue: unknown key"),
        ("{webhook: {url: 'https://a.example'}}", "inference.webhook.secret: is required"),
        ("{webhook: {secret: '${SECRET}'}}", "inference.webhook.url: is required"),
        ("{webhook: {url: 'https://a.example', secret: short}}", "inference.webhook.secret: must be whsec_"),
        ("{webhook: {url: 'http://localhost/x', secret: '${SECRET}'}}", "set allow_private to allow it"),
        ("{webhook: {url: 'http://169.254.169.254/', secret: '${SECRET}'}}", "set allow_private to allow it"),
        ("{webhook: {url: 'file:///etc/passwd', secret: '${SECRET}'}}", "must start with http"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(section: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        parsed(f"inference: {section}\n")
    assert says in str(told.value)
