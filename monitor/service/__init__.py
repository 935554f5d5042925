"""Settings, wiring, stages, metrics, HTTP and the command line."""
