"""What a run's report takes from the logs, which go with the stack."""

from scripts.chaos import report
from scripts.chaos.verdict import Verdict

REQUEST, OTHER = "01M8MKTAZ0VAFKMASE309DQC00", "01M8MKT997KZGKNZE65G34X200"


def test_the_lines_of_the_logs_that_name_a_violation(tmp_path):
    (tmp_path / "gateway.log").write_text(f'{{"request":"{REQUEST}","status":503}}\n{{"request":"{OTHER}"}}\n')
    (tmp_path / "bridge-fra.log").write_text(f'{{"task":"{REQUEST}-0"}}\n')
    verdict = Verdict(unexpected=[f"{REQUEST}: answered 503, and can be read"])
    assert report.logged(tmp_path, verdict) == [
        f'bridge-fra: {{"task":"{REQUEST}-0"}}',
        f'gateway: {{"request":"{REQUEST}","status":503}}',
    ]
    assert report.logged(tmp_path, Verdict()) == []
