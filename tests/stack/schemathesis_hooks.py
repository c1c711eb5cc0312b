"""What schemathesis can't make by itself: of a header's pattern it keeps letters and digits only."""

import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.format("event-id", st.from_regex(r"\A[0-9]{1,19}-[0-9]{1,19}(\.done)?\Z"))
