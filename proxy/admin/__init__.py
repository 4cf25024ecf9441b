"""The admin port: health, metrics and the docs page, for the platform and for people on this machine."""
