"""Async shell of stage 1: venue sessions, staleness, recording, replaying, simulators."""
