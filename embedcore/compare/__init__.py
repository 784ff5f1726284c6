"""Compare saved runs from their JSON alone: changes, significance, causes, the verdict under limits, and history."""
