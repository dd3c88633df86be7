"""Model, record, replay, project and simulate event-sourced systems in a notebook."""
