"""Where the offline store of a test's world is: in a folder, and where the test says `everywhere`, on S3 as well."""

from __future__ import annotations

import pytest

everywhere = pytest.mark.parametrize("place", ["folder", "s3"], indirect=True)
