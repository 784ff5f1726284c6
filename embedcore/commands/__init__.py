"""The subcommands of ``embedcore``, one module each."""
