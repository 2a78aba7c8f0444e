"""The personas that ship with the package, as TOML files; see `handlehome.relay.assistant`."""
