"""`emberfs completion`."""

import click

from fs_client.cli.text import put

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options and their values.

    \b
    Example:
      emberfs completion bash > ~/.local/share/bash-completion/completions/emberfs
      emberfs completion zsh > "${fpath[1]}/_emberfs"
      emberfs completion fish > ~/.config/fish/completions/emberfs.fish
    """
    from click.shell_completion import get_completion_class

    from fs_client.cli.main import commands

    kind = get_completion_class(shell)
    assert kind is not None
    put(kind(commands, {}, "emberfs", "_EMBERFS_COMPLETE").source())
