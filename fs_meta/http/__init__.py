"""What people and their tools reach over HTTP: REST administration, metrics and health, and the console."""
