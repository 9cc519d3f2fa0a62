"""What holds for all tests."""

from collections.abc import Iterator

import hypothesis
import pytest

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True, scope="session")
def timings_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """How fast models run is timed once and kept in the user's cache; tests leave that file alone."""
    from preflexor_agents.backends import widths

    with pytest.MonkeyPatch.context() as patch:
        file = tmp_path_factory.mktemp("timings") / "widths.json"
        patch.setattr(widths, "_file", lambda: file)
        yield
