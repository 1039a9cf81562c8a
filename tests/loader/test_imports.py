"""What importing the loader loads."""

import subprocess
import sys

import pytest

import fs_client.loader


def test_every_public_name_is_there() -> None:
    for name in fs_client.loader.__all__:
        assert getattr(fs_client.loader, name).__name__ == name


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="Sampler"):
        _ = fs_client.loader.Sampler


def test_torch_is_not_loaded_before_a_batch_is_collated() -> None:
    code = """if True:
        import sys
        import fs_client.loader
        assert "numpy" not in sys.modules
        for name in fs_client.loader.__all__:
            getattr(fs_client.loader, name)
        assert "torch" not in sys.modules
        assert "grpc" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)
