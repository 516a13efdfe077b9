"""What a command can ask for: one module a task, its settings beside what runs it."""
