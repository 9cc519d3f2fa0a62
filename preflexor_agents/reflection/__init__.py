"""The recursion: one pure state machine (`protocol`) and an engine that runs it over backends and a store."""
